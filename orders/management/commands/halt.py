"""`halt`: halts trading and cancels every open order. There is no command to resume: a person
resumes, in the console."""

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders import statuses
from orders.cancel_all import Outcome
from orders.halting import AlreadyHalted, Halted, halt_all, reduce
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.numbers import plain


class Command(BaseCommand):
    help = (
        "Halt trading: only cancels pass until a person resumes in the console. Cancels every open "
        "order, also those placed elsewhere. Ends with 1 when something is not confirmed."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", required=True, help="Why; it stays in the history.")
        parser.add_argument("--account", help="Only this account; all of them if left out.")
        parser.add_argument("--no-cancel", action="store_true", help="Leave open orders working.")
        parser.add_argument(
            "--suspend-at-broker",
            action="store_true",
            help="Bar new orders at the broker, too, by its own setting.",
        )
        parser.add_argument(
            "--reducing",
            action="store_true",
            help="Do not halt: from now on only orders that reduce positions pass. Cancels none.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        reason = options["reason"].strip()
        if not reason:
            raise CommandError("Say why: --reason 'TEXT'.")
        if options["reducing"] and (options["no_cancel"] or options["suspend_at_broker"]):
            raise CommandError("--reducing stands alone: it cancels nothing and bars nothing.")
        accounts = BrokerAccount.served()
        if options["account"]:
            accounts = accounts.filter(name=options["account"])
        if not accounts:
            raise CommandError("There is no such account at this broker: nothing was halted.")
        actor = f"command line ({getpass.getuser()})"
        if options["reducing"]:
            # Each is tried: one that is refused must not keep the others from it.
            certain = [self._reduce(account, reason, actor) for account in accounts]
        else:
            certain = self._halt(list(accounts), reason, actor, options)
        if not all(certain):
            sys.exit(1)

    def _reduce(self, account: BrokerAccount, reason: str, actor: str) -> bool:
        self.stdout.write(f"{account}: lets only orders that reduce positions pass, from now on.")
        try:
            state = reduce(account, reason=reason, actor=actor)
        except AlreadyHalted as error:
            self.stdout.write(f"{account}: NOT DONE. {error}")
            return False
        self.stdout.write(f"{account}: confirmed, trading is {state.state}.")
        return True

    def _halt(
        self, accounts: list[BrokerAccount], reason: str, actor: str, options: dict[str, Any]
    ) -> list[bool]:
        cancels, bars = not options["no_cancel"], options["suspend_at_broker"]
        for account in accounts:
            rows = Order.objects.filter(account=account)
            count = rows.exclude(status__in=sorted(statuses.CLOSED)).count()
            what = (
                f"halts trading, cancels {count} open orders and whatever else is open at the "
                "broker"
                if cancels
                else f"halts trading, leaves {count} open orders working: they may still fill, and "
                "exits of what fills wait until trading is resumed"
            )
            bar = ", bars new orders at the broker" if bars else ""
            self.stdout.write(f"{account}: {what}{bar}.")
        certain = []
        for done in halt_all(
            accounts,
            reason=reason,
            actor=actor,
            cancel_open_orders=cancels,
            suspend_at_broker=bars,
        ):
            self._tell(done, cancels=cancels)
            certain.append(done.confirmed)
        return certain

    def _tell(self, done: Halted, *, cancels: bool) -> None:
        account = done.account
        self.stdout.write(f"{account}: confirmed, trading is {done.state.state}.")
        for each in done.outcomes:
            self.stdout.write(_line(each))
        ended = sum(each.outcome not in ("failed", "pending") for each in done.outcomes)
        if cancels:
            self.stdout.write(f"{account}: {ended} of {len(done.outcomes)} orders have ended.")
        if done.suspended_at_broker:
            self.stdout.write(f"{account}: confirmed, the broker bars new orders.")
        for sentence in done.unconfirmed:
            self.stdout.write(f"{account}: NOT CONFIRMED. {sentence}")


def _line(each: Outcome) -> str:
    order = each.order
    name = f"broker order {each.broker_order_id}" if order is None else order.client_order_id
    line = f"  {name}: {each.outcome}, {plain(each.filled_qty)} filled"
    return f"{line} ({each.detail})" if each.detail else line
