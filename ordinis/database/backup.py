"""A dump of the database, taken before a migration changes it.

Restore one with `pg_restore --clean --if-exists -d <database> <file>`. Must never touch the
database, leave half a dump under a finished name, or put a password on a command line.
"""

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from ordinis.database import embedded

KEPT = 10


class NoBackup(Exception):
    """No backup was made; the text says why."""


def backup(to: Path | None = None) -> Path:
    """Dumps the database into the folder `to` (var/backups), which keeps the newest ten.

    Returns the file. Raises NoBackup.
    """
    folder = to or Path(settings.VAR_DIR) / "backups"
    finished = folder / f"ordinis-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.dump"
    unfinished = finished.with_suffix(".part")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It holds everything the database holds, so it's for its owner alone.
        with open(unfinished, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            run = subprocess.run(
                [_pg_dump(), "--format=custom", "--no-password"],
                env={**os.environ, **_connection()},
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        if run.returncode:
            raise NoBackup(f"No backup was made: {run.stderr.strip()}")
        unfinished.rename(finished)
    except OSError as error:
        raise NoBackup(f"No backup was made in {folder}: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
    for old in sorted(folder.glob("ordinis-*.dump"))[:-KEPT]:
        old.unlink()
    return finished


def _pg_dump() -> str:
    """For a server of one's own its own pg_dump, which has its version, before the wheel's."""
    own = (
        shutil.which("pg_dump")
        if connection.settings_dict["ENGINE"] != "ordinis.database"
        else None
    )
    if own is not None:
        return own
    try:
        return str(embedded.program_folder() / "pg_dump")
    except ImproperlyConfigured as error:
        raise NoBackup(
            "No backup was made: there is no pg_dump on PATH. Install PostgreSQL's client "
            "programs, or back the database up by other means before you migrate it."
        ) from error


def _connection() -> dict[str, str]:
    """Django's connection in libpq's variables: a command line would show the password."""
    values = {**connection.get_connection_params()}
    if connection.settings_dict["ENGINE"] == "ordinis.database":
        values["host"] = embedded.server().ensure()
    names = {
        "dbname": "PGDATABASE",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "host": "PGHOST",
        "port": "PGPORT",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
    }
    return {names[key]: str(value) for key, value in values.items() if key in names}
