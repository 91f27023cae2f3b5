"""`manage.py clock`: makes the periodic jobs due. With REDIS_URL it is Celery beat."""

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Puts the periodic jobs on the queue (with REDIS_URL: Celery beat)."
    requires_system_checks: list[str] = []

    def handle(self, **_: object) -> None:
        # Imported here, since only one of the two is installed everywhere.
        if settings.REDIS_URL:
            from ordinis.celery import app

            app.Beat(quiet=True).run()
        else:
            from ordinis import clock

            clock.run()
