"""`demo_strategy`: runs the demo strategy against the API. Its token is in ORDINIS_TOKEN."""

import os
import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ordinis.strategies.demo import Demo


class Command(BaseCommand):
    help = "Run the demo strategy (its token comes from the environment: ORDINIS_TOKEN)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--api", default=f"http://127.0.0.1:{settings.PORT}/api/v1")
        parser.add_argument("--data", default=settings.BROKER_URL, help="Market data address.")
        parser.add_argument("--every", type=float, default=2.0, help="Seconds between orders.")

    def handle(self, *args: Any, **options: Any) -> None:
        token = os.environ.get("ORDINIS_TOKEN", "")
        if not token:
            raise CommandError("Set ORDINIS_TOKEN to a token with read and trade (create_token).")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        Demo(api_url=options["api"], data_url=options["data"], token=token).run(
            every=options["every"], stopped=stop.wait
        )
