"""`manage.py web`: the API and the console, served by granian."""

from argparse import ArgumentParser

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.urls import get_resolver
from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from ordinis import heartbeat
from ordinis.first_look import compare_books
from ordinis.supervisor import is_free

# 8 long polls and 28 orders at the broker or in line for it, and some for everything else.
WORKERS, THREADS = 2, 40
# A broker that does not answer must not keep console and halt away for longer.
_FIRST_LOOK_WITHIN = 10.0


class Command(BaseCommand):
    help = "Serves the API and the console."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=settings.PORT, help="default: PORT")

    def handle(self, *, host: str, port: int, **_: object) -> None:
        if not is_free(host, port):
            raise CommandError(
                f"Port {port} on {host} is taken by another program. Stop that, or choose another "
                f"port: PORT={port + 10} python manage.py web"
            )
        call_command("collectstatic", interactive=False, verbosity=0)
        # Workers are forked: they share what is loaded here, and must not share a connection.
        get_resolver().url_patterns  # noqa: B018 - loads the URLs and all that stands behind them
        compare_books(seconds=_FIRST_LOOK_WITHIN)
        connections.close_all()
        heartbeat.keep_beating("web")
        Granian(
            "ordinis.wsgi:application",
            address=host,
            port=port,
            interface=Interfaces.WSGI,
            workers=WORKERS,
            blocking_threads=THREADS,
            respawn_failed_workers=True,
            # Requests under way may end; a long poll does not hold up the end.
            workers_kill_timeout=2,
            log_level=LogLevels.warning,
        ).serve()
