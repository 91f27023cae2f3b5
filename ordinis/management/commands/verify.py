"""`verify`: checks every invariant of the books on the real data."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction

from ordinis.verify import violations


class Command(BaseCommand):
    help = "Check that the books are whole: every invariant, on the real data."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            # One moment for all checks: orders may flow meanwhile.
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = list(violations())
        for sentence in found:
            self.stdout.write(sentence)
        if found:
            raise CommandError(f"{len(found)} violations. Halt trading and find out why.")
        self.stdout.write("All invariants hold.")
