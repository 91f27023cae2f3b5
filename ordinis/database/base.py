"""Django's PostgreSQL backend on the embedded server: `ENGINE = "ordinis.database"`.

The server is started by the first connection that is asked for, and again by the next one after
it was killed. Must never start it at import, and adds nothing else to Django's own backend.
"""

import sys
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.creation import TEST_DATABASE_PREFIX
from django.db.backends.postgresql import base

if sys.platform == "win32":
    raise ImproperlyConfigured(
        "The embedded PostgreSQL runs on Linux and macOS. Set DATABASE_URL to a PostgreSQL "
        "server, or use the Windows Subsystem for Linux."
    )

from ordinis.database import embedded


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        server = embedded.server()
        name = conn_params["dbname"]
        host = server.host
        if host is not None:
            try:
                return super().get_new_connection({**conn_params, "host": host})
            except psycopg.OperationalError as error:
                if embedded.is_final(error) and f'"{name}" does not exist' not in str(error):
                    raise
        # Django's test runner makes its own databases, and must see when one is missing.
        wanted = None if name.startswith(TEST_DATABASE_PREFIX) else name
        return super().get_new_connection({**conn_params, "host": server.ensure(wanted)})
