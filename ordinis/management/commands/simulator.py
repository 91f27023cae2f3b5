"""`manage.py simulator`: run the simulated broker until it is told to stop.

Needs neither the database nor any key. Must never run where a real broker is configured by
mistake: it only ever listens on loopback.
"""

import errno
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ordinis.simulator.server import run
from ordinis.simulator.snapshot import UnusableState


class Command(BaseCommand):
    help = "Runs the simulated broker on this machine: Alpaca's REST and stream, and /sim/."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.SIMULATOR_PORT)
        parser.add_argument("--seed", type=int, default=1, help="of the price walk")
        parser.add_argument(
            "--state",
            type=Path,
            default=settings.VAR_DIR / "simulator.sqlite3",
            help="file that keeps orders and positions over a restart",
        )
        parser.add_argument(
            "--load",
            type=Path,
            help="snapshot to begin with, as GET /sim/snapshot gives it",
        )

    def handle(self, *_arguments: Any, **options: Any) -> None:
        port, state = options["port"], options["state"]
        try:
            run(
                port,
                options["seed"],
                state,
                snapshot_path=options["load"],
                on_listening=self._say,
            )
        except UnusableState as problem:
            raise CommandError(
                f"{problem}. Stop the simulator that uses it, remove the file to start anew, or "
                "name another: manage.py simulator --state FILE (or --load SNAPSHOT)."
            ) from None
        except OSError as problem:
            if problem.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            raise CommandError(
                f"Port {port} is taken or not allowed. Stop what uses it, or choose another: "
                f"manage.py simulator --port {port + 1} (or set ORDINIS_SIMULATOR_PORT)."
            ) from None

    def _say(self, url: str) -> None:
        self.stdout.write(f"The simulated broker listens on {url} (its own app: {url}/sim/).")
        self.stdout.flush()
