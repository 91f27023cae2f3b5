"""`rebuild`: takes an account's book over from the broker anew, in an emergency."""

import getpass
from argparse import ArgumentParser
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.numbers import dollars, plain
from reconciliation.rebuild import Change, NotRebuilt, Plan, preview, rebuild


class Command(BaseCommand):
    help = (
        "Take the book of an account over from the broker anew: shares, average prices and cash. "
        "Only while trading is halted. Without --confirm it shows what would change."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", required=True, help="The account's name.")
        parser.add_argument("--reason", default="", help="Why; required with --confirm.")
        parser.add_argument("--confirm", help="The account's name once more: rebuild it.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would change, also with --confirm."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        name, reason = options["account"], options["reason"]
        account = BrokerAccount.served().filter(name=name).first()
        if account is None:
            raise CommandError(f"There is no account {name!r} at this broker.")
        if options["confirm"] is None or options["dry_run"]:
            self._show(account)
            return
        actor = f"command line ({getpass.getuser()})"
        try:
            row = rebuild(account, typed=options["confirm"], actor=actor, reason=reason)
        except NotRebuilt as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{account}: rebuilt ({len(row.changes)} positions changed). Compare book and broker "
            "with `manage.py reconcile`, then resume trading."
        )

    def _show(self, account: BrokerAccount) -> None:
        try:
            plan = preview(account)
        except BrokerError as error:
            raise CommandError(f"The broker could not be read: {error.message}") from error
        for line in _lines(plan):
            self.stdout.write(line)
        if plan.problem:
            raise CommandError(f"It can't be done now. {plan.problem}")
        self.stdout.write(f"Nothing was changed. To do it: --confirm {account.name} --reason WHY")


def _lines(plan: Plan) -> list[str]:
    positions = [_line(change) for change in plan.changes] or ["No position would change."]
    before, after = dollars(plan.cash_before) or "unknown", dollars(plan.cash_after) or "unknown"
    return [*positions, f"Cash: {before} becomes {after}."]


def _line(change: Change) -> str:
    before, after = (
        _held(change.before, change.average_price_before),
        _held(change.after, change.average_price_after),
    )
    return f"{change.symbol}: {before} becomes {after}"


def _held(qty: Decimal, average: Decimal | None) -> str:
    return plain(qty) if average is None else f"{plain(qty)} at {plain(average)}"
