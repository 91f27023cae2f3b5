"""`sync`: reads account, positions and open orders from the broker, now."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.sync import ensure_open_book, poll, refresh
from ordinis.accounts.models import BrokerAccount
from ordinis.accounts.setup import account_named
from ordinis.broker.errors import BrokerError


class Command(BaseCommand):
    help = "Read positions, open orders and account from the broker now."

    def handle(self, *args: Any, **options: Any) -> None:
        if not BrokerAccount.served().exists():
            account_named("main")
        for account in BrokerAccount.served():
            try:
                ensure_open_book(account)
                complete = poll(account)
                read = refresh(account)
            except BrokerError as error:
                raise CommandError(f"{account}: {error.message}") from error
            self.stdout.write(
                f"{account}: equity ${read.account.equity:,.2f}, buying power "
                f"${read.account.buying_power:,.2f}, {len(read.positions)} positions, "
                f"{account.orders.exclude(acknowledged_at=None).count()} orders sent so far"
                f"{'' if complete else '; the broker could not be read completely'}"
            )
