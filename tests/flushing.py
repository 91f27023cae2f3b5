"""Empties the test database after a transactional test, without TRUNCATE's files and syncs.

Django truncates every table and sets the permissions up anew, which takes longer than most tests.
Here only tables that have rows are emptied, with triggers and foreign keys out of the way for the
moment (an append-only table refuses DELETE), and what set-up made once stays.
"""

from django.apps import apps
from django.db import ProgrammingError, connection
from django.test import TransactionTestCase

# Made by migrations and their set-up, and the same for every test.
_KEPT = frozenset(
    {"django_migrations", "django_content_type", "auth_permission", "auth_group"}
    | {"auth_group_permissions", "positions_instrument"}
)


_flush_as_django_does = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]


def flush(case: TransactionTestCase) -> None:
    """In the place of `TransactionTestCase._fixture_teardown`."""
    try:
        _empty()
    except ProgrammingError:  # a server where we may not switch triggers off
        connection.rollback()
        _flush_as_django_does(case)


def _empty() -> None:
    tables = sorted(
        {model._meta.db_table for model in apps.get_models(include_auto_created=True)} - _KEPT
    )
    with connection.cursor() as cursor:
        asked = " UNION ALL ".join(
            f"SELECT '{table}' WHERE EXISTS (SELECT FROM \"{table}\")"  # noqa: S608 our own names
            for table in tables
        )
        cursor.execute(asked)
        filled = [table for (table,) in cursor.fetchall()]
        if filled:
            emptying = "".join(f'DELETE FROM "{table}";' for table in filled)  # noqa: S608
            cursor.execute(
                "BEGIN; SET LOCAL session_replication_role = replica;"
                f"SET LOCAL synchronous_commit = off; {emptying} COMMIT;"
            )
