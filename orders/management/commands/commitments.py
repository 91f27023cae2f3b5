"""`commitments`: each order that counts when the next one is judged, and why."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.counted import Counted, counted
from orders.judgement import reserved
from orders.sync import refresh
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.numbers import plain


class Command(BaseCommand):
    help = "Show what open orders commit beyond the broker's figures: money, shares, exposure."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", default="main")
        parser.add_argument("--fresh", action="store_true", help="Ask the broker first.")

    def handle(self, *args: Any, **options: Any) -> None:
        account = BrokerAccount.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"There is no account {options['account']!r}.")
        if options["fresh"]:
            try:
                refresh(account)
            except (BrokerUnavailable, BrokerRefused) as error:
                raise CommandError(f"The broker could not be asked: {error.message}") from error
            account.refresh_from_db()
        if account.as_of is None:
            raise CommandError("The broker's figures were never read. Add --fresh to ask now.")
        for each in counted(account):
            self.stdout.write(_line(each))
        self.stdout.write(
            f"{account}: ${reserved(account.pk, account.as_of):,.2f} reserved beyond the broker's "
            f"buying power of ${account.buying_power:,.2f} as of {account.as_of:%H:%M:%S} UTC."
        )


def _line(each: Counted) -> str:
    order = each.order
    return (
        f"{order.client_order_id} ({order.strategy}): {order.side} {plain(order.qty)} "
        f"{order.symbol}, {order.status}: ${each.money:,.2f} and {plain(each.shares)} shares "
        f"reserved, ${each.exposure:,.2f} of exposure to come. {each.reason}"
    )
