"""`cancel_all`: cancels every open order, also those that were not placed here."""

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.cancel_all import Outcome, cancel_all
from orders.errors import OrderCancellationError
from orders.lifecycle import Origin, Source
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain


class Command(BaseCommand):
    help = "Cancel every open order, also those placed elsewhere; new ones are denied meanwhile."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, help="Why; it stays in each history.")
        parser.add_argument("--account", help="Only this account; all of them if left out.")
        parser.add_argument("--symbol", default="", help="Only orders of this symbol.")

    def handle(self, *args: Any, **options: Any) -> None:
        reason = options["reason"].strip()
        if not reason:
            raise CommandError("Say why: --reason 'TEXT'.")
        accounts = BrokerAccount.served()
        if options["account"]:
            accounts = accounts.filter(name=options["account"])
        if not accounts:
            raise CommandError("There is no such account at this broker: nothing was cancelled.")
        actor = f"command line ({getpass.getuser()})"
        origin = Origin(Source.OPERATOR, actor, f"All are cancelled: {reason}")
        unconfirmed = 0
        for account in accounts:
            try:
                outcomes = cancel_all(account, origin, symbol=options["symbol"].upper())
            except OrderCancellationError as error:
                raise CommandError(f"{account}: {error}") from error
            for each in outcomes:
                self.stdout.write(_line(each))
            unconfirmed += sum(each.outcome in ("failed", "pending") for each in outcomes)
            self.stdout.write(f"{account}: {len(outcomes)} orders were open.")
        if unconfirmed:
            self.stdout.write(
                f"{unconfirmed} not confirmed: they may fill. Look at them in the broker's own app."
            )
            sys.exit(1)


def _line(each: Outcome) -> str:
    order = each.order
    what = f"broker order {each.broker_order_id}"
    if order is not None:
        what = f"{order.client_order_id}: {order.side} {plain(order.qty)} {order.symbol}"
    line = f"{what}: {each.outcome}, {plain(each.filled_qty)} filled"
    return f"{line} ({each.detail})" if each.detail else line
