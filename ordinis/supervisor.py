"""Keeps the processes of `manage.py start` running, and ends all of them.

Each child runs in a session of its own, so that a Ctrl-C reaches the supervisor alone; its output
goes to a bounded log file. A child that dies is started again, ever more slowly while it keeps
dying. Must never know what a child does, and never leave one behind.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ordinis import supervised

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds until a dead child is started again
SETTLED = 60.0  # seconds of life after which the delay begins anew
STOPS_WITHIN = 3.0  # seconds until what has not ended is killed; then the database needs a moment
LOG_LIMIT = 10_000_000  # bytes of one child's log; one predecessor is kept
TICK = 0.1
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Program:
    """One `manage.py` command to keep running."""

    name: str
    arguments: Sequence[str]
    """The command and its arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What this child alone is told, such as a token."""
    stopped: int = 1
    """Its turn at the end; those of one turn are stopped together, 0 first."""


@dataclass
class _Child:
    program: Program
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    delay: float = FIRST_DELAY
    log_start: int = 0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Starts programs, watches them, stops them. To be used from one thread."""

    def __init__(self, *, log_folder: Path, say: Callable[[str], None]) -> None:
        self._log_folder = log_folder
        self._say = say
        self._children: list[_Child] = []
        # Only we hold the writing end, so its end tells every child of ours.
        self._pipe, self._alive = os.pipe()

    def start(self, program: Program) -> None:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        child = _Child(program, self._log_folder / f"{program.name}.log")
        self._children.append(child)
        self._start(child)

    def wait_for_port(
        self, name: str, port: int, *, seconds: float, ended: threading.Event
    ) -> bool:
        """Waits until the child answers on its port. False when it died or took too long."""
        child = next(child for child in self._children if child.program.name == name)
        deadline = time.monotonic() + seconds
        while child.is_running and time.monotonic() < deadline:
            if answers(port):
                return True
            if ended.wait(0.05):
                break
        return False

    def last_words(self, name: str) -> str:
        child = next(child for child in self._children if child.program.name == name)
        return _last_lines(child)

    def watch(self, ended: threading.Event) -> None:
        """Starts again what dies, until `ended` is set."""
        while not ended.wait(TICK):
            now = time.monotonic()
            for child in self._children:
                if child.process is None:
                    if now >= child.start_at:
                        self._start(child)
                        self._say(f"{child.program.name} was started again.")
                elif child.process.poll() is not None:
                    self._bury(child, now)
                else:
                    keep_bounded(child.log)

    def stop(self) -> None:
        """Ends all children, in their turns, within `STOPS_WITHIN`."""
        began = time.monotonic()
        turns = sorted({child.program.stopped for child in self._children})
        for number, turn in enumerate(turns, start=1):
            group = [child for child in self._children if child.program.stopped == turn]
            for child in group:
                if child.process is not None and child.is_running:
                    child.process.terminate()  # its pid alone: a task queue ends its own children
            # An early turn that hangs leaves time for the later ones, and goes on meanwhile.
            deadline = began + STOPS_WITHIN * number / len(turns)
            while any(child.is_running for child in group) and time.monotonic() < deadline:
                time.sleep(0.02)
        for child in self._children:
            _kill_session(child)
        os.close(self._pipe)
        os.close(self._alive)

    def _start(self, child: _Child) -> None:
        keep_bounded(child.log)
        with open(child.log, "ab", opener=_private) as log:
            child.log_start = log.tell()
            child.process = subprocess.Popen(
                [sys.executable, "-m", "ordinis.supervised", *child.program.arguments],
                cwd=PROJECT,
                env={
                    **os.environ,
                    **child.program.environment,
                    supervised.PIPE: str(self._pipe),
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._pipe,),
                start_new_session=True,
            )
        child.started_at = time.monotonic()

    def _bury(self, child: _Child, now: float) -> None:
        assert child.process is not None
        result = child.process.returncode
        _kill_session(child)  # its forks, which would compete with those of its successor
        child.process = None
        if now - child.started_at >= SETTLED:
            child.delay = FIRST_DELAY
        child.start_at = now + child.delay
        how = f"was ended by {signal.Signals(-result).name}" if result < 0 else f"ended ({result})"
        said = _last_lines(child)
        self._say(
            f"{child.program.name} {how}; it is started again in {child.delay:g} s."
            + (f" Its last lines ({child.log}):\n{said}" if said else "")
        )
        child.delay = min(2 * child.delay, LONGEST_DELAY)


def _kill_session(child: _Child) -> None:
    """Kills what is left of the child and of everything that it forked."""
    if child.process is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def keep_bounded(log: Path) -> None:
    """Copied and cut, not renamed: the child goes on writing to the end of the same file."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        shutil.copy2(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def _last_lines(child: _Child, count: int = 5) -> str:
    with child.log.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        # It was cut meanwhile if it is shorter than it was.
        log.seek(max(size - 4000, child.log_start if size >= child.log_start else 0))
        lines = log.read().decode(errors="replace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-count:])


def answers(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections of a predecessor that linger don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
