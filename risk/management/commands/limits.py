"""`limits`: shows or changes risk limits and pricing offsets, with the console's validation."""

import getpass
from argparse import ArgumentParser
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import models

from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.numbers import plain
from risk.limits import change, in_force
from risk.models import RiskLimits

_YES_OR_NO = {
    field.name for field in RiskLimits._meta.fields if isinstance(field, models.BooleanField)
}


class Command(BaseCommand):
    help = "Show limits, or change them: limits buy_offset=10 --reason 'tighter spread'."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="An empty VALUE clears.")
        parser.add_argument("--account", default="main")
        parser.add_argument("--strategy", help="Only for this strategy of the account.")
        parser.add_argument("--reason", default="", help="Why; required for a change.")

    def handle(self, *args: Any, **options: Any) -> None:
        account = BrokerAccount.objects.filter(name=options["account"]).first()
        if account is None:
            raise CommandError(f"There is no account {options['account']!r}.")
        strategy = None
        if options["strategy"]:
            strategy = Strategy.objects.filter(account=account, name=options["strategy"]).first()
            if strategy is None:
                raise CommandError(
                    f"Account {account} has no strategy {options['strategy']!r}; "
                    "create_token makes one."
                )
        values = dict(_pair(text) for text in options["values"])
        if values:
            if not options["reason"].strip():
                raise CommandError("Say why: --reason 'TEXT'.")
            try:
                version = change(
                    account=account,
                    strategy=strategy,
                    values=values,
                    reason=options["reason"],
                    actor=f"command line ({getpass.getuser()})",
                )
            except ValidationError as error:
                raise CommandError(_problems(error)) from error
            self.stdout.write(f"{version}:")
        for key, value in asdict(in_force(account.pk, strategy.pk if strategy else None)).items():
            self.stdout.write(f"{key}={_text(value)}")


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise CommandError(f"{text!r} is not KEY=VALUE.")
    if key in _YES_OR_NO:
        return key, {"yes": True, "no": False}.get(value, value or None)
    return key, value or None


def _text(value: Any) -> str:
    """A value as it can be given again."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def _problems(error: ValidationError) -> str:
    if hasattr(error, "message_dict"):
        return "; ".join(
            f"{key}: {' '.join(messages)}" for key, messages in error.message_dict.items()
        )
    return "; ".join(error.messages)
