"""`risk_selftest`: a synthetic order through each risk control, to prove that it fires."""

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.selftest import NotTested, run, silent
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable

_SIGNS = {True: "fired ", False: "SILENT", None: "off   "}


class Command(BaseCommand):
    help = (
        "Prove that every risk control fires: a synthetic order through each, judged as real ones "
        "are. Sends nothing and leaves nothing but the result. Ends with 1 when one did not fire."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--account", help="Only this account; all of them if left out.")

    def handle(self, *args: Any, **options: Any) -> None:
        accounts = BrokerAccount.served()
        if options["account"]:
            accounts = accounts.filter(name=options["account"])
        if not accounts:
            raise CommandError("There is no such account at this broker: nothing was tested.")
        passed = [self._passes(account) for account in accounts]  # each, also after a failure
        if not all(passed):
            sys.exit(1)

    def _passes(self, account: BrokerAccount) -> bool:
        try:
            test = run(account, actor=f"command line ({getpass.getuser()})")
        except (BrokerUnavailable, BrokerRefused, NotTested) as error:
            self.stdout.write(f"{account}: NOT TESTED. {error}")
            return False
        for each in test.results:
            sent = f"{each['sent']} → " if each["sent"] else ""
            wanted = "" if each["ok"] is not False else f" (expected {each['expected']})"
            self.stdout.write(
                f"{_SIGNS[each['ok']]}  {each['control']}: {sent}{each['came']}{wanted}"
            )
        fired = sum(each["ok"] is True for each in test.results)
        off = sum(each["ok"] is None for each in test.results)
        self.stdout.write(f"{account}: {fired} controls fired, {off} are off.")
        if not test.passed:
            self.stdout.write(
                f"{account}: DID NOT FIRE: {', '.join(silent(test))}. Halt trading "
                "(manage.py halt) until it is known why."
            )
        return test.passed
