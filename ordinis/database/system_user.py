"""The system user PostgreSQL runs as: ourselves, or another one when we are root.

PostgreSQL refuses to run as root. Where root's project lies in a folder that is closed to others
(a home, a temporary folder), the server's user is given the one capability that lets it pass,
instead of opening the folder to every user of the machine. Must never change the permissions or
the owner of a folder it did not make.
"""

import ctypes
import functools
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "ordinis-db"
# Nothing of ours reaches PostgreSQL: no PGDATA, no keys, no locale of a language it logs in.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class NoAccount(Exception):
    """There's no user PostgreSQL could run as here; the text says what to do."""


@dataclass
class Account:
    """Who runs the server. `uid` and `gid` are None for ourselves."""

    uid: int | None = None
    gid: int | None = None
    through_closed_folders: bool = False

    def test_access(self, program: Path, folder: Path) -> None:
        """Finds out whether the account reaches program and folder, and how."""
        if self._reaches(program, folder):
            return
        if self.uid is not None and sys.platform == "linux":
            self.through_closed_folders = True
            if self._reaches(program, folder):
                return
        raise NoAccount(
            f"PostgreSQL does not run as root, and the user {name_of(self.uid)} may not read "
            f"{program.parent} or {folder}. Run Ordinis as an ordinary user, move the project out "
            "of the closed folder, or set DATABASE_URL to a PostgreSQL server."
            if self.uid is not None
            else f"{program} can't be run on this machine. Set DATABASE_URL to a PostgreSQL server."
        )

    def _reaches(self, program: Path, folder: Path) -> bool:
        try:
            runs = self.run([str(program), "--version"]).returncode == 0
            return runs and self.run(["/bin/sh", "-c", 'cd "$0"', str(folder)]).returncode == 0
        except (PermissionError, subprocess.SubprocessError):
            return False

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            preexec_fn=self._identity(),
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, command: Sequence[str], *, keep_open: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            preexec_fn=self._identity(),
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            pass_fds=(keep_open,),
        )

    def _identity(self) -> Callable[[], None] | None:
        """What the child does before it becomes the program (the keeper has one thread)."""
        if self.uid is None or self.gid is None:
            return None
        return functools.partial(_become, self.uid, self.gid, through=self.through_closed_folders)

    def make_private_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)


def for_server(data: Path) -> Account:
    """Ourselves; for root the data folder's owner, or a user made for the purpose."""
    if os.geteuid() != 0:
        return Account()
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    entry = _entry() or _create()
    return Account(entry.pw_uid, entry.pw_gid)


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        return None


def _create() -> pwd.struct_passwd:
    """Adds the user, with whichever program the system has for it."""
    problem = "there is no useradd here"
    for command in (
        ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME],
        ["adduser", "-S", "-D", "-H", NAME],  # busybox
    ):
        for _ in range(10):
            try:
                finished = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                break
            entry = _entry()
            if entry is not None:
                return entry
            problem = finished.stderr.strip()
            time.sleep(0.2)  # another one may be editing the list of users
    raise NoAccount(
        f"PostgreSQL does not run as root, and the user {NAME} could not be added ({problem}). "
        "Run Ordinis as an ordinary user, or set DATABASE_URL to a PostgreSQL server."
    )


_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def _become(uid: int, gid: int, *, through: bool) -> None:
    """Gives up root; `through` keeps only the capability to pass closed folders."""
    libc = ctypes.CDLL(None, use_errno=True)
    if through:
        _check(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if through:
        kept = 1 << _CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)
        _check(libc.capset(header, sets))
        _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        raise PermissionError(ctypes.get_errno(), "a capability could not be kept")
