"""The keeper: starts one folder's PostgreSQL, and stops it when its last user is gone.

A process of its own, because only somebody who outlives every user can clean up after one that
was killed: users hold a shared lock, and the keeper stops the server once it can have that lock
alone. Being PostgreSQL's parent it also reaps it. If the keeper itself is killed, the server
goes on, and the next user starts a keeper that adopts it.

Must never load Django or the project's settings, and never loosen the permissions of a folder
it did not make.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ordinis.database import locks, system_user

TICK = 0.1  # seconds between two looks at the users' lock
SOCKET_NAME = ".s.PGSQL.5432"
# The shortest limit of the systems PostgreSQL runs on (macOS: 104 with the closing zero).
LONGEST_SOCKET_PATH = 103
TEMPORARY_PREFIX = "ordinis-db-"


class CannotStart(Exception):
    """The server can't be started; the text says why and what to do."""


def cluster_name(data: Path) -> str:
    """What PostgreSQL's processes are called in the process list, one name per folder."""
    return f"ordinis-{data.stat().st_ino}"


def _postmaster(data: Path, line: int) -> str:
    """A line of what the server says of itself; empty when it has not said it (yet)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return ""
    return lines[line - 1].strip() if len(lines) >= line else ""


def postmaster_pid(data: Path) -> int | None:
    text = _postmaster(data, 1)
    return int(text) if text.isdecimal() else None


def socket_folder(data: Path) -> Path | None:
    """Where the server of this data folder listens."""
    text = _postmaster(data, 5)
    return Path(text) if text else None


def is_ready(data: Path) -> bool:
    return _postmaster(data, 8) == "ready"


def answers(data: Path) -> bool:
    """Whether somebody listens. Orphaned children of a killed server do not."""
    folder = socket_folder(data)
    if folder is None:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(folder / SOCKET_NAME))
        except BlockingIOError:
            return True  # its queue of callers is full
        except OSError:
            return False
    return True


def _remove_temporary(folder: Path | None) -> None:
    if folder is not None and folder.name.startswith(TEMPORARY_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


class Keeper:
    def __init__(self, *, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.data = folder / "data"
        self.child: subprocess.Popen[bytes] | None = None
        self.asked_to_stop = False
        self.was_ready = False

    def run(self) -> int:
        keeper_lock = locks.open_lock(self.folder / locks.HELD_BY_KEEPER)
        # A user's probe may hold it for an instant.
        if not locks.take(keeper_lock, seconds=0.2):
            return 0
        signal.signal(signal.SIGTERM, self._stop_soon)
        signal.signal(signal.SIGINT, self._stop_soon)
        try:
            self._start_or_adopt()
        except CannotStart as error:
            print(f"ordinis: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the server's log
            return 1
        users = locks.open_lock(self.folder / locks.HELD_BY_USERS)
        while not self.asked_to_stop and not locks.take(users):
            self.was_ready = self.was_ready or is_ready(self.data)
            if self.child is None and not locks.is_held(self.folder / locks.HELD_BY_SERVER):
                return 0
            if self.child is not None and self.child.poll() is not None:
                # One that had served was killed: the next user starts it again. One that had not
                # can't be started, and its last words say why.
                return 0 if self.was_ready else 1
            time.sleep(TICK)
        self._stop()
        return 0

    def _stop_soon(self, *_: object) -> None:
        self.asked_to_stop = True

    def _start_or_adopt(self) -> None:
        server_lock = locks.open_lock(self.folder / locks.HELD_BY_SERVER)
        try:
            if locks.take(server_lock):
                self._start_alone(server_lock)
            elif not answers(self.data):
                self._wait_for_orphans(server_lock)
                self._start_alone(server_lock)
        except system_user.NoAccount as error:
            raise CannotStart(str(error)) from error
        except OSError as error:
            raise CannotStart(
                f"PostgreSQL's programs or its folder can't be used here ({error}). Set "
                "DATABASE_URL to a PostgreSQL server instead."
            ) from error
        finally:
            os.close(server_lock)  # from here PostgreSQL and its children hold it

    def _start_alone(self, server_lock: int) -> None:
        # Nobody of an earlier server lives, so what its crash left behind may go. PostgreSQL
        # itself would mistake a zombie or a reused process id for a running server.
        self._remove_socket_folder()
        self._check_owner()
        account = system_user.for_server(self.data)
        account.test_access(self.programs / "postgres", self.folder)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if not self.data.exists():
            self._make_data_folder(account)
        self._start(account, server_lock)

    def _wait_for_orphans(self, server_lock: int) -> None:
        """Children that outlive a killed server end by themselves, unless a query keeps them."""
        if locks.take(server_lock, seconds=1):
            return
        import psutil

        title = f"postgres: {cluster_name(self.data)}:"
        for process in psutil.process_iter(["cmdline"]):
            if " ".join(process.info["cmdline"] or ()).startswith(title):
                process.kill()
        if not locks.take(server_lock, seconds=10):
            raise CannotStart(
                f"another PostgreSQL still uses {self.data}, perhaps in another container that "
                "shares this folder. Stop it there first."
            )

    def _check_owner(self) -> None:
        if self.data.exists() and os.geteuid() not in (0, self.data.stat().st_uid):
            raise CannotStart(
                f"{self.data} belongs to {system_user.name_of(self.data.stat().st_uid)}. Run "
                "Ordinis as that user, or choose another folder with ORDINIS_VAR_DIR."
            )

    def _make_data_folder(self, account: system_user.Account) -> None:
        """Under another name first: a half-made data folder must never look like a whole one."""
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        account.make_private_folder(new)
        finished = account.run(
            [
                str(self.programs / "initdb"),
                *("--pgdata", str(new), "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C"),
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ]
        )
        if finished.returncode:
            shutil.rmtree(new, ignore_errors=True)
            raise CannotStart(
                f"the database could not be made in {self.folder} "
                f"(initdb ended with {finished.returncode}).\n{finished.stderr.strip()}"
            )
        new.rename(self.data)

    def _start(self, account: system_user.Account, server_lock: int) -> None:
        listening = self._make_socket_folder(account)
        quoted = '"' + str(listening).replace('"', '""') + '"'
        settings = {
            # No network: a private folder is the whole of the access control.
            "listen_addresses": "",
            "unix_socket_directories": quoted,
            "unix_socket_permissions": "0700",
            "cluster_name": cluster_name(self.data),
            "max_connections": "200",
            # Orders are real money: what was committed is on disk.
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",
            "io_method": "sync",  # three processes fewer than with its own workers
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",  # `embedded` reads them
            "log_checkpoints": "off",
        }
        self.child = account.start(
            [
                str(self.programs / "postgres"),
                *("-D", str(self.data)),
                *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
            ],
            keep_open=server_lock,
        )

    def _make_socket_folder(self, account: system_user.Account) -> Path:
        folder = self.folder / "socket"
        if len(os.fsencode(folder / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
            # Made anew with a name nobody can guess, so nobody can have been there before.
            folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX))
            if len(os.fsencode(folder / SOCKET_NAME)) > LONGEST_SOCKET_PATH:
                folder.rmdir()
                folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir="/tmp"))
        account.make_private_folder(folder)
        return folder

    def _remove_socket_folder(self) -> None:
        """The socket has a lock file of its own, with a process id that may be reused."""
        shutil.rmtree(self.folder / "socket", ignore_errors=True)
        _remove_temporary(socket_folder(self.data))

    def _stop(self) -> None:
        pid = self.child.pid if self.child is not None else postmaster_pid(self.data)
        listening = socket_folder(self.data)
        server_lock = locks.open_lock(self.folder / locks.HELD_BY_SERVER)
        # "Fast": sessions are ended, a checkpoint is written. "Immediate" if that hangs.
        for how, seconds in ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)):
            try:
                if pid is not None and (self.child is None or self.child.poll() is None):
                    os.kill(pid, how)
            except ProcessLookupError:
                break
            if locks.take(server_lock, seconds=seconds):
                break
        if self.child is not None:
            self.child.wait(timeout=10)
        _remove_temporary(listening)


if __name__ == "__main__":
    folder, programs = (Path(argument) for argument in sys.argv[1:])
    sys.exit(Keeper(folder=folder, programs=programs).run())
