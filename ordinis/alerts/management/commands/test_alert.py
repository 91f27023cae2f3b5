"""`test_alert`: a test message on every channel, and what came of it."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ordinis.alerts.trial import send_test


class Command(BaseCommand):
    help = "Send a test alert on every channel of ORDINIS_ALERT_URLS, and say what came of it."

    def handle(self, *args: Any, **options: Any) -> None:
        outcomes = send_test("manage.py test_alert")
        if not outcomes:
            raise CommandError(
                "No channel is set up: alerts are only shown in the console. Set "
                "ORDINIS_ALERT_URLS, for example ops=discord://…,mail=mailto://…"
            )
        for outcome in outcomes:
            self.stdout.write(
                f"{'ok  ' if outcome.arrived else 'FAIL'}  {outcome.channel}: {outcome.words}"
            )
        failed = sum(not outcome.arrived for outcome in outcomes)
        if failed:
            raise CommandError(f"{failed} of {len(outcomes)} did not work.")
