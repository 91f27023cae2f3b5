"""`create_token`: a strategy's key to the API. The last line of the output is the token alone."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from ordinis.accounts.setup import issue_token


class Command(BaseCommand):
    help = "Make an API token (and its strategy and account where missing). It is shown once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--strategy", required=True, help="Name of the strategy.")
        parser.add_argument("--account", default="main", help="Name of the account.")
        parser.add_argument(
            "--scopes", default="read,trade", help="Of read, trade, operate; comma-separated."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        scopes = tuple(scope.strip() for scope in options["scopes"].split(",") if scope.strip())
        try:
            token, secret = issue_token(
                strategy=options["strategy"], account=options["account"], scopes=scopes
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"Token for strategy {token.strategy.name} in account {options['account']} "
            f"({', '.join(token.scopes)}). It can't be shown again:"
        )
        self.stdout.write(secret)
