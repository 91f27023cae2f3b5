"""`manage.py alive NAME`: whether a kind of process does its work (for health checks)."""

import http.client
from argparse import ArgumentParser
from datetime import timedelta

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db.models.functions import Now

from ordinis.models import Heartbeat


class Command(BaseCommand):
    help = "Succeeds when a process of this kind is at work (web, listen, clock, beat, worker)."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", choices=("web", "listen", "clock", "beat", "worker"))
        parser.add_argument("--within", type=float, default=60, help="seconds since its last sign")

    def handle(self, *, name: str, within: float, **_: object) -> None:
        if name == "web":
            _ask(settings.PORT)
            return
        recent = Now() - timedelta(seconds=within)
        if not Heartbeat.objects.filter(name=name, last_seen_at__gt=recent).exists():
            raise CommandError(f"{name} gave no sign of life for {within:g} s.")


def _ask(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        raise CommandError(f"web does not answer on port {port}: {error}") from error
    finally:
        connection.close()
    if status != 200:
        raise CommandError(f"web answers {status} on port {port}.")
