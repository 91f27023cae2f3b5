"""One consumer of an account's stream: a session lock of PostgreSQL on a connection of its own.

The lock dies with the process, or with its machine, and nobody has to clean up. A consumer that
has just lost it may overlap with the next for a second or two: that is why everything behind it
is safe to do twice. The connection must not go through a pooler that shares sessions.
"""

import logging
from copy import deepcopy
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, connections

log = logging.getLogger("ordinis.stream")

_CLASS = 0x6F7264  # ours among the session locks of this database
# A machine that dies says no farewell: both ends give the connection up within seconds.
_CLIENT = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "connect_timeout": 5,
    "application_name": "ordinis listen lease",
}
_SERVER = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
)
_TAKE = "SELECT pg_try_advisory_lock(%s, %s)"
_HELD = (
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted "
    "AND pid = pg_backend_pid() AND classid = %s AND objid = %s)"
)


class LeaseUnavailable(Exception):
    """The database does not answer, so nobody can say whose the lease is."""


class StreamLease:
    """`take` until it is had, then ask `is_held` every second. Not for several threads at once."""

    def __init__(self, account_id: int) -> None:
        self._key = (_CLASS, account_id)
        self._connection: psycopg.Connection[Any] | None = None

    def take(self) -> bool:
        """Whether it is ours now; False while another process has it. Raises LeaseUnavailable."""
        try:
            if self._connection is None:
                self._connection = _connect()
            return self._ask(_TAKE)
        except (psycopg.Error, Error) as error:
            self.release()
            raise LeaseUnavailable(str(error)) from error

    def is_held(self) -> bool:
        """Whether it is still ours. Once it is not, `take` starts anew."""
        try:
            held = self._connection is not None and self._ask(_HELD)
        except psycopg.Error as error:
            log.warning("the stream's lease is lost: %s", error)
            held = False
        if not held:
            self.release()
        return held

    def release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, question: str) -> bool:
        assert self._connection is not None, "connected before"
        row = self._connection.execute(question.encode(), self._key).fetchone()
        return bool(row and row[0])


def _connect() -> psycopg.Connection[Any]:
    """A session that Django does not know of, so that it is never closed as old or idle."""
    wrapper = connections.create_connection(DEFAULT_DB_ALIAS)
    wrapper.settings_dict = deepcopy(wrapper.settings_dict)
    wrapper.settings_dict.setdefault("OPTIONS", {}).update(_CLIENT)
    connection: psycopg.Connection[Any] = wrapper.get_new_connection(
        wrapper.get_connection_params()
    )
    connection.autocommit = True
    connection.execute(_SERVER)
    return connection
