"""File locks that die with their holders: how processes of one folder know of each other.

A lock of `flock` belongs to the open file, so a forked child holds it together with its parent,
and the kernel releases it however the last of them ends. Must never rely on a process id: ids
are reused, and mean nothing in another container.
"""

import fcntl
import os
import time
from pathlib import Path

HELD_BY_USERS = "users.lock"  # shared, by every process that uses the server
HELD_BY_KEEPER = "keeper.lock"  # by the keeper, so that there is one
HELD_BY_SERVER = "server.lock"  # by PostgreSQL and all its children, which inherit it


def open_lock(path: Path) -> int:
    """An open file to lock. It's never handed to another program (close-on-exec)."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def take(descriptor: int, *, shared: bool = False, seconds: float = 0) -> bool:
    """Takes the lock, waiting up to `seconds`; says whether it was had."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock exclusively. A shared probe, so that two do not meet."""
    descriptor = open_lock(path)
    try:
        return not take(descriptor, shared=True)
    finally:
        os.close(descriptor)
