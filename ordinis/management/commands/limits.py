"""`limits`: shows or changes risk limits and pricing offsets, with the console's validation,
versions and approvals. Lines that begin with # tell; all others can be given again.
"""

import getpass
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from orders.hindsight import DAYS, would_have_denied
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console.limits_text import window
from risk.figures import database_now
from risk.limit_values import ACCOUNT_ONLY, KEYS, SETS, Limits, as_text, from_text, own, resolve
from risk.limit_windows import HELP, read_end
from risk.limits import Assessment, assess, change, holding, to_come
from risk.loosening import LOOSENS, loosened
from risk.models import RiskLimits


class Command(BaseCommand):
    help = "Show limits, or change them: limits buy_offset=10 --reason 'tighter spread'."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="An empty VALUE clears.")
        parser.add_argument("--account", default="main")
        parser.add_argument("--strategy", help="Only for this strategy of the account.")
        parser.add_argument("--reason", default="", help="Why; required for a change.")
        parser.add_argument("--starts", choices=("now", "next_session"), default="now")
        parser.add_argument("--until", default="", help=f"Only until then: {HELP}.")
        parser.add_argument(
            "--check", action="store_true", help="Only say what the change would do."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        account, strategy = _owner(options["account"], options["strategy"])
        values = dict(_pair(text) for text in options["values"])
        if values:
            self._change(account, strategy, values, options)
        elif options["until"] or options["starts"] != "now" or options["check"]:
            raise CommandError("Name what to change: KEY=VALUE.")
        if not (values and options["check"]):
            for line in _shown(account, strategy):
                self.stdout.write(line)

    def _change(
        self,
        account: BrokerAccount,
        strategy: Strategy | None,
        values: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        if not options["reason"].strip() and not options["check"]:
            raise CommandError("Say why: --reason 'TEXT'.")
        try:
            wanted: dict[str, Any] = {
                "account": account,
                "strategy": strategy,
                "values": values,
                "starts": options["starts"],
                "ends_at": read_end(options["until"]),
            }
            judged = assess(**wanted)
            if options["check"]:
                self.stdout.write(f"{judged.version} as it would be. Nothing is stored.")
                for key in judged.version.changed:
                    was, now = getattr(judged.before, key), getattr(judged.after, key)
                    looser = " (loosens)" if key in judged.loosened else ""
                    self.stdout.write(f"# {key}: {as_text(was)} → {as_text(now)}{looser}")
            else:
                row = change(
                    **wanted,
                    reason=options["reason"],
                    actor=f"command line ({getpass.getuser()})",
                )
                self.stdout.write(_stored(row))
        except ValidationError as error:
            raise CommandError(_problems(error)) from error
        for line in _effects(judged):
            self.stdout.write(line)


def _owner(account_name: str, strategy_name: str | None) -> tuple[BrokerAccount, Strategy | None]:
    account = BrokerAccount.objects.filter(name=account_name).first()
    if account is None:
        raise CommandError(f"There is no account {account_name!r}.")
    if not strategy_name:
        return account, None
    strategy = Strategy.objects.filter(account=account, name=strategy_name).first()
    if strategy is None:
        raise CommandError(
            f"Account {account} has no strategy {strategy_name!r}; create_token makes one."
        )
    return account, strategy


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"{text!r} is not KEY=VALUE.")
    return key.strip(), from_text(key.strip(), value)


def _stored(row: RiskLimits) -> str:
    if row.status == RiskLimits.Status.PROPOSED:
        return (
            f"{row} loosens a limit and waits for a second person: it holds once somebody has "
            "approved it in the console."
        )
    return f"{row}:"


def _effects(judged: Assessment) -> Iterator[str]:
    """What a person should know of a change, besides what holds now."""
    if judged.waits:
        yield f"# Loosens {', '.join(judged.loosened)}. To tighten at once, change that alone."
    if any(loosened(after, before) for before, after in judged.strategies.values()):
        found = would_have_denied(judged.version.account_id, judged.strategies)
        by_key = ", ".join(f"{key} {count}" for key, count in found.by_key.items())
        yield (
            f"# Of {found.orders} orders sent in the last {DAYS} days it would have denied "
            f"{found.denied}{f' ({by_key})' if by_key else ''}."
        )


def _shown(account: BrokerAccount, strategy: Strategy | None) -> Iterator[str]:
    rows = list(holding().filter(account=account))
    accounts = own(rows, None)
    mine = own(rows, strategy.pk) if strategy else None
    limits = resolve(accounts, mine)
    for key in KEYS:
        value = getattr(limits, key)
        if strategy is not None and key in ACCOUNT_ONLY:
            yield f"# {key}={as_text(value)} (of the account only)"
        elif key in SETS and value == frozenset() and key != "blocked_symbols":
            # Empty, it would be given again as: all of them.
            yield f"# {key}: none, account and strategy have none in common"
        else:
            yield f"{key}={as_text(value)}"
    if mine is not None:
        yield from _overruled(accounts, mine, limits)
    now = database_now()
    for row in to_come(account.pk, now):
        if strategy is None or row.strategy_id in (None, strategy.pk):
            values = " ".join(f"{key}={as_text(getattr(row, key))}" for key in row.changed)
            reason = " ".join(row.reason.split())
            yield f"# {row}: {row.phase(now).lower()}, {window(row, now)}: {values} ({reason})"


def _overruled(accounts: dict[str, Any], mine: dict[str, Any], limits: Limits) -> Iterator[str]:
    """Where the account's tighter value holds instead of the strategy's own."""
    of_account = resolve(accounts)
    for key, value in mine.items():
        holds = getattr(limits, key)
        if key in LOOSENS and holds != value:
            yield (
                f"# {key}: the strategy's own is {as_text(value)}, the account's is "
                f"{as_text(getattr(of_account, key))}: the tighter, {as_text(holds)}, holds"
            )


def _problems(error: ValidationError) -> str:
    if hasattr(error, "message_dict"):
        return "; ".join(
            f"{key}: {' '.join(messages)}" for key, messages in error.message_dict.items()
        )
    return "; ".join(error.messages)
