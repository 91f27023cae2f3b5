"""`manage.py worker`: runs the periodic jobs. With REDIS_URL it is a Celery worker."""

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Runs what is on the queue (django-q2; with REDIS_URL: Celery)."
    requires_system_checks: list[str] = []

    def handle(self, **_: object) -> None:
        # Imported here, since only one of the two is installed everywhere.
        if settings.REDIS_URL:
            from ordinis.celery import app

            # Workers need not know of each other: leases keep a job from running twice.
            app.worker_main(
                ["worker", "--loglevel=WARNING", "--without-gossip", "--without-mingle"]
            )
        else:
            from ordinis import worker

            worker.run()
