"""`reconcile`: compares book and broker now and prints the report."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ordinis.accounts.models import BrokerAccount
from reconciliation.api import report_out
from reconciliation.models import ReconciliationReport
from reconciliation.run import Busy, reconcile

_WORDS = {
    "suspect": "looked at once more",
    "wait": "waited for: it moves, or the second look is not due yet",
    "opened": "made a break",
    "reopened": "opened again",
    "seen_again": "counted once more",
    "healed": "closed: it is gone",
    "proposed": "proposed for correction",
    "corrected": "corrected, within the limits",
    "resolved": "closed: a trade brought it back",
    "not_compared": "left out",
    "halted": "answered with a halt of trading",
}


class Command(BaseCommand):
    help = "Compare book and broker now."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", help="Only this account; all of them if left out.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Report only, keep nothing open."
        )
        parser.add_argument("--json", action="store_true", help="One JSON report a line.")

    def handle(self, *args: Any, **options: Any) -> None:
        accounts = BrokerAccount.served()
        if options["account"]:
            accounts = accounts.filter(name=options["account"])
            if not accounts:
                raise CommandError(f"There is no account {options['account']!r} at this broker.")
        incomplete = False
        for account in accounts:
            try:
                report = reconcile(account, dry_run=options["dry_run"], source="command")
            except Busy as error:
                raise CommandError(str(error)) from error
            incomplete = incomplete or not report.complete
            self.stdout.write(
                json.dumps(report_out(report)) if options["json"] else _sentence(report)
            )
        if incomplete:
            raise CommandError("The broker could not be read completely; nothing was concluded.")


def _sentence(report: ReconciliationReport) -> str:
    if not report.complete:
        return f"{report.account}: incomplete: {report.reason}"
    what = (
        f"{report.account}: {report.compared_count} positions compared in "
        f"{report.duration_seconds} s; zombies: {', '.join(report.zombies) or 'none'}; orphans: "
        f"{', '.join(report.orphans) or 'none'}; quantity differs: "
        f"{', '.join(drift['symbol'] for drift in report.quantity_drifts) or 'none'}; "
        f"{report.pending_approval_count} corrections wait for a decision"
    )
    return "\n".join([what, *(_line(report, action) for action in report.actions)])


def _line(report: ReconciliationReport, action: dict[str, Any]) -> str:
    would = "would be " if report.dry_run else ""
    words = _WORDS.get(action["action"], action["action"])
    about = action["symbol"] or action["subject"]
    return f"  {action['kind']} {about}: {would}{words}. {action['words']}".rstrip()
