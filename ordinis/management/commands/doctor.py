"""`doctor`: what is wrong with this set-up, and what to do about each thing."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ordinis.doctor import examine

_SIGNS = {"ok": "ok  ", "warning": "look", "fail": "FAIL"}


class Command(BaseCommand):
    help = "Check keys, mode, clock, permissions, database, queue, worker, stream and books."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="One JSON list.")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in examine():
            findings.append(finding)
            if not options["json"]:
                self.stdout.write(f"{_SIGNS[finding.status]}  {finding.check}: {finding.message}")
                if finding.advice:
                    self.stdout.write(f"      → {finding.advice}")
        if options["json"]:
            self.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2))
        failed = sum(finding.status == "fail" for finding in findings)
        if failed:
            raise CommandError(f"{failed} of {len(findings)} checks fail.")
