"""Users of a database of their own, and what is left when they have ended."""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent


class User:
    """A process that uses the database of one var folder."""

    def __init__(self, var: Path, *, ordinary: bool) -> None:
        # On a test machine the interpreter itself may lie in root's closed home.
        drop = "setpriv --reuid=nobody --regid=nogroup --clear-groups --inh-caps=+dac_read_search"
        prefix = [*drop.split(), "--ambient-caps=+dac_read_search"] if ordinary else []
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.database.user"],
            cwd=PROJECT,
            env={
                **{key: value for key, value in os.environ.items() if key != "DATABASE_URL"},
                "DJANGO_SETTINGS_MODULE": "ordinis.settings",
                "ORDINIS_VAR_DIR": str(var),
                "SECRET_KEY": "for this test",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, command: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def query(self, statement: str) -> str:
        return self.tell(f"query {statement}")

    def server_pid(self) -> int:
        """The server this user talks to: its session's parent."""
        return psutil.Process(int(self.query("SELECT pg_backend_pid()"))).ppid()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)


class House:
    """One var folder and its users."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.users: list[User] = []

    def user(self, *, ordinary: bool = False) -> User:
        user = User(self.var, ordinary=ordinary)
        self.users.append(user)
        return user

    def keeper_pid(self) -> int:
        folder = str(self.var.resolve() / "postgres")
        (pid,) = (
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "ordinis.database.keeper" in (process.info["cmdline"] or ())
            and folder in process.info["cmdline"]
        )
        return pid

    def running(self) -> list[psutil.Process]:
        """Keepers and servers of this folder; a server's children end with it."""
        folder = str(self.var.resolve() / "postgres")
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(folder in part for part in process.info["cmdline"] or ())
        ]

    def is_empty(self) -> bool:
        return not self.running() and not (self.var / "postgres/data/postmaster.pid").exists()

    def clear(self) -> None:
        for user in self.users:
            if user.process.poll() is None:
                user.kill()
        # A test that failed with the keeper dead leaves a server that nobody will stop.
        deadline = time.monotonic() + 5
        while self.running():
            if time.monotonic() > deadline:
                kill_hard(*(process.pid for process in self.running()))
            time.sleep(0.02)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "var")
    yield house
    house.clear()


@pytest.fixture
def house_at() -> Iterator[Callable[[Path], House]]:
    houses: list[House] = []

    def make(var: Path) -> House:
        houses.append(House(var))
        return houses[-1]

    yield make
    for house in houses:
        house.clear()


def kill_hard(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended with the one before it
            os.kill(pid, signal.SIGKILL)


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")
