"""`report`: the report of a day of the exchange, printed or as CSV."""

import os
from argparse import ArgumentParser
from collections.abc import Iterable
from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ordinis.accounts.models import BrokerAccount
from ordinis.console.daily_text import as_csv, as_lines
from reconciliation.daily import NoReport, figures_of
from reconciliation.daily_tables import tables
from risk.exchange import CalendarUnknown
from risk.figures import database_now


class Command(BaseCommand):
    help = "Print the report of a day; of one without a stored report, what was counted so far."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--date", help="2026-11-20; the day that runs if left out.")
        parser.add_argument("--account", help="Only this account; all of them if left out.")
        parser.add_argument("--csv", action="store_true", help="As CSV; --account is needed.")

    def handle(self, *args: Any, **options: Any) -> None:
        accounts = BrokerAccount.served()
        if options["account"]:
            accounts = accounts.filter(name=options["account"])
            if not accounts:
                raise CommandError(f"There is no account {options['account']!r} at this broker.")
        if options["csv"] and len(accounts) > 1:
            raise CommandError("A CSV is of one account: add --account.")
        day = _day(options["date"])
        try:
            self._print(accounts, day, as_csv_=options["csv"])
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough (`| head`). Else the end of the process would complain.
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), self.stdout.fileno())

    def _print(self, accounts: Iterable[BrokerAccount], day: date | None, *, as_csv_: bool) -> None:
        """Each account's; those without a report are told at the end."""
        without: list[str] = []
        for account in accounts:
            try:
                figures = figures_of(account, day, database_now())
            except (NoReport, CalendarUnknown) as error:
                without.append(str(error))
                continue
            if as_csv_:
                self.stdout.write(as_csv(tables(figures)), ending="")
                continue
            for line in as_lines(tables(figures)):
                self.stdout.write(line)
        if without:
            raise CommandError("\n".join(dict.fromkeys(without)))


def _day(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise CommandError(f"{text!r} is no date; write it as 2026-11-20.") from error
