"""SPEC K1: a figure that is missing, not finite or absurd denies. Nothing is computed from it."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from risk.checks.values import ZERO, Context, Finding, Intent

ORDER: Final = "order_unusable"
FIGURES: Final = "figures_unusable"
_ABSURD = Decimal(10) ** 13  # dollars or shares


def check(intent: Intent, context: Context) -> Iterator[Finding]:
    account = context.account
    order = {
        "qty": intent.qty,
        "worst price": intent.worst_price,
        "limit price": intent.limit_price,
        "reference price": intent.reference_price,
        "ask": intent.ask,
        "replaced qty": intent.replaced_qty,
        "replaced cost": intent.replaced_cost,
    }
    yield from _unusable(ORDER, "The order's", order, "Send it again with a plain number.")
    if not any(_is_broken(value) for value in order.values()) and intent.qty <= 0:
        yield _finding(ORDER, "The order's qty is not above zero. Send it with one that is.")
    figures = {
        "equity": account.equity,
        "buying power": account.buying_power,
        "cash": account.cash,
        "shares held": context.held_qty,
        "free shares": context.free_qty,
        "committed money": context.committed.money,
        "shares on their way": context.committed.sold(intent.symbol),
        **{
            f"value of {symbol}": worth.gross
            for symbol, worth in context.worth.items()
            if _is_broken(worth.gross)
        },
    }
    remedy = "Try again; if it stays, look at the account in the broker's own app."
    yield from _unusable(FIGURES, "The broker's", figures, remedy)


def _unusable(
    code: str, whose: str, values: Mapping[str, Decimal | None], remedy: str
) -> Iterator[Finding]:
    for name, value in values.items():
        if _is_broken(value):
            yield _finding(
                code, f"{whose} {name} is {value}: nothing can be judged by it. {remedy}"
            )


def _is_broken(value: Decimal | None) -> bool:
    return value is not None and (not value.is_finite() or abs(value) > _ABSURD)


def _finding(code: str, message: str) -> Finding:
    return Finding(code=code, ok=False, limit=ZERO, actual=Decimal(1), message=message)
