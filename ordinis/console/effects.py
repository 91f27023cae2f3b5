"""What approving a correction changes in the book, and what that is against equity and the limits.
Reads what is stored; never asks the broker and changes nothing.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django.db.models import F, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Abs, Coalesce

from ordinis.console import text
from ordinis.console.breaks_text import order_words
from ordinis.console.evidence import price_of
from positions import sectors
from positions.ledger import Holding, after_split, realized
from positions.models import UNKNOWN_SECTOR, Instrument, Position
from reconciliation.models import Correction
from risk.limits import in_force

Kind: Final = Correction.Kind
# A proposal keeps these of the limits that held then.
_LIMIT_WORDS: Final = {
    "reconcile_mode": "Reconcile mode",
    "auto_correct_max_value": "Corrects by itself up to, in dollars",
    "auto_correct_max_qty": "Corrects by itself up to, in shares",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of the book before and after, and the limit that it is measured by."""

    name: str
    before: str
    after: str
    limit: str = ""
    above: bool = False


def changes(correction: Correction) -> list[Change]:
    """Every figure that approving changes: a fixed number of queries."""
    match correction.kind:
        case Kind.CASH:
            ours, brokers = text.money(correction.local), text.money(correction.broker)
            return [Change("Cash in our book", ours, brokers)]
        case Kind.AVERAGE_PRICE:
            return [_average(correction), *_cost(correction)]
        case Kind.SPLIT:
            before = Holding(correction.local, correction.local_average_price)
            average = correction.broker_average_price or (
                after_split(before, correction.difference).average_price
            )
            return [
                _shares(correction),
                Change("Average price", text.price(before.average_price), text.price(average)),
            ]
        case Kind.TRADE:
            return [
                Change(
                    "Shares at the broker",
                    text.shares(correction.broker),
                    text.shares(correction.local),
                ),
                *_exposure(correction, before=correction.broker, after=correction.local),
            ]
    found = [_shares(correction)]
    if correction.broker and correction.broker_average_price != correction.local_average_price:
        found.append(_average(correction))
    found.extend(_exposure(correction, before=correction.local, after=correction.broker))
    found.extend(_profit(correction))
    return found


def words(correction: Correction) -> list[str]:
    """What the figures do not say."""
    if correction.kind == Kind.TRADE:
        return [
            f"It SENDS AN ORDER: {order_words(correction)}, as a limit order of the strategy "
            f"“operator”, through every risk check. The limit was {text.price(correction.price)} "
            "when this was proposed; it is made anew when the order is sent.",
            "The book stays as it is.",
            "The shares are back at the broker only once the order has filled. It may fill in part "
            "or not at all; then the break stays open.",
            _ANEW,
        ]
    found = []
    if correction.kind == Kind.POSITION and not correction.broker:
        found.append("The position closes.")
    entry = "cash entry" if correction.kind == Kind.CASH else "ledger entry"
    found.append(f"It is one {entry} with your name and comment, and it cannot be taken back.")
    if correction.kind == Kind.POSITION and not correction.price and _closes(correction):
        found.append(
            "At what price the shares went is not known, so no profit or loss is booked for them."
        )
    if correction.kind == Correction.Kind.POSITION:
        found.append("Exposure is our book's here; risk checks go by what the broker holds.")
    found.append("No order is sent: nothing is bought or sold.")
    found.append(_ANEW)
    return found


_ANEW: Final = (
    "The broker is read once more at that moment. If anything has moved, nothing is done and a new "
    "proposal is made."
)


def limits_then(correction: Correction) -> list[tuple[str, str]]:
    """The limits that held when it was proposed, by name."""
    stored: dict[str, Any] = correction.limits
    return [
        (words, str(stored[name]).replace("_", " "))
        for name, words in _LIMIT_WORDS.items()
        if name in stored
    ]


def _shares(correction: Correction) -> Change:
    assert correction.position is not None, "only cash has none"
    return Change(
        f"{correction.position.symbol} in our book, shares",
        text.shares(correction.local),
        text.shares(correction.broker),
    )


def _average(correction: Correction) -> Change:
    return Change(
        "Average price",
        text.price(correction.local_average_price),
        text.price(correction.broker_average_price),
    )


def _cost(correction: Correction) -> list[Change]:
    ours, brokers = correction.local_average_price, correction.broker_average_price
    if ours is None or brokers is None:
        return []
    held = correction.local
    return [Change("Cost of the position", text.money(held * ours), text.money(held * brokers))]


def _closes(correction: Correction) -> bool:
    """Whether it takes away shares that were held."""
    return bool(correction.local) and (correction.local > 0) != (correction.difference > 0)


def _profit(correction: Correction) -> list[Change]:
    if correction.price is None or not _closes(correction):
        return []
    assert correction.position is not None, "only cash has none"
    held = Holding(correction.local, correction.local_average_price)
    earned = realized(held, correction.difference, correction.price)
    before = correction.position.realized_profit
    return [
        Change(
            f"Realised profit (they went at {text.price(correction.price)})",
            text.signed_money(before),
            f"{text.signed_money(before + earned)} ({text.signed_money(earned)})",
        )
    ]


def _exposure(correction: Correction, *, before: Decimal, after: Decimal) -> list[Change]:
    """The symbol, its sector and everything held, in dollars and against equity. The sums are of
    our book, and of the broker's shares where a trade moves those."""
    price, equity = price_of(correction), correction.account.equity
    if price is None or correction.position is None:
        return []
    symbol = correction.position.symbol
    limits = in_force(correction.account_id)
    sums, sector = _others(correction.account_id, symbol, brokers=correction.kind == Kind.TRADE)
    was, will = abs(before * price), abs(after * price)
    rows = (
        (f"Exposure in {symbol}", Decimal(0), limits.max_position_pct),
        (f"Exposure in its sector, {sector}", sums["sector"], limits.max_sector_pct),
        ("Exposure of everything held", sums["all"], limits.max_exposure_pct),
    )
    return [
        Change(
            name,
            _of_equity(others + was, equity),
            _of_equity(others + will, equity),
            f"{text.shares(limit)} % of equity",
            bool(equity and equity > 0 and (others + will) * 100 > limit * equity),
        )
        for name, others, limit in rows
    ]


def _others(account_id: int, symbol: str, *, brokers: bool) -> tuple[dict[str, Decimal], str]:
    """What is held besides this symbol, in dollars: of its sector, and of all."""
    sector = (
        Instrument.objects.filter(symbol=symbol).values_list(sectors.COUNTS_AS, flat=True).first()
        or UNKNOWN_SECTOR
    )
    of_row = Instrument.objects.filter(symbol=OuterRef("symbol")).values_list(sectors.COUNTS_AS)
    price = Coalesce("broker_price", "broker_average_price", "average_price", Value(Decimal(0)))
    worth = Abs(F("broker_qty" if brokers else "qty") * price)
    found = (
        Position.objects.filter(account_id=account_id)
        .exclude(symbol=symbol)
        .annotate(counts_as=Coalesce(Subquery(of_row), Value(UNKNOWN_SECTOR)))
        .aggregate(all=Sum(worth), sector=Sum(worth, filter=Q(counts_as=sector)))
    )
    return {name: value or Decimal(0) for name, value in found.items()}, str(sector)


def _of_equity(value: Decimal, equity: Decimal | None) -> str:
    if not equity or equity <= 0:
        return text.money(value)
    return f"{text.money(value)} ({value * 100 / equity:.1f} % of equity)"
