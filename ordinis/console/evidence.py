"""What a correction rests on and what it would change, laid side by side for the person who
decides. Reads what is stored; never asks the broker and changes nothing.
"""

from dataclasses import dataclass
from decimal import Decimal

from orders.models import Fill, Order
from ordinis.console import text
from positions.models import LedgerEntry, Position
from reconciliation.models import Correction

RECENT = 8


@dataclass(frozen=True, slots=True)
class Side:
    """One figure on which the book and the broker differ, in words."""

    name: str
    ours: str
    brokers: str
    difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the page shows beside the correction itself."""

    sides: list[Side]
    effects: list[str]
    moved: str
    orders: list[Order]
    fills: list[Fill]
    entries: list[LedgerEntry]
    earlier: list[Correction]


def evidence(correction: Correction) -> Evidence:
    """Gathers it: a fixed number of queries."""
    position = correction.position
    of_symbol = {"account_id": correction.account_id, "symbol": position.symbol}
    return Evidence(
        sides=_sides(correction, position),
        effects=_effects(correction, position),
        moved=_moved(correction, position),
        orders=list(Order.objects.select_related("strategy").filter(**of_symbol)[:RECENT]),
        fills=list(
            Fill.objects.select_related("order")
            .filter(order__account_id=correction.account_id, order__symbol=position.symbol)
            .order_by("-occurred_at", "-pk")[:RECENT]
        ),
        entries=list(position.ledger.select_related("strategy").order_by("-seq")[:RECENT]),
        earlier=list(
            Correction.objects.select_related("proposed_by", "decided_by")
            .filter(position=position, pk__lt=correction.pk)
            .order_by("-pk")[:RECENT]
        ),
    )


def action(correction: Correction) -> str:
    """What approving does, for a button: add −40 AAPL to the book."""
    shown = text.signed_shares(correction.difference)
    return f"add {shown} {correction.position.symbol} to the book"


def _price(correction: Correction, position: Position) -> Decimal | None:
    return (
        position.broker_price or correction.broker_average_price or correction.local_average_price
    )


def _sides(correction: Correction, position: Position) -> list[Side]:
    sides = [
        Side(
            "Shares",
            text.shares(correction.local_qty),
            text.shares(correction.broker_qty),
            text.signed_shares(correction.difference),
        )
    ]
    ours, brokers = correction.local_average_price, correction.broker_average_price
    if ours != brokers:
        apart = None if ours is None or brokers is None else brokers - ours
        sides.append(
            Side("Average price", text.price(ours), text.price(brokers), text.signed_money(apart))
        )
    if (at := _price(correction, position)) is not None:
        sides.append(
            Side(
                f"Value at {text.price(at)}",
                text.money(correction.local_qty * at),
                text.money(correction.broker_qty * at),
                text.signed_money(correction.difference * at),
            )
        )
    return sides


def _effects(correction: Correction, position: Position) -> list[str]:
    symbol = position.symbol
    effects = [
        f"The book of {symbol} goes from {text.shares(correction.local_qty)} to "
        f"{text.shares(correction.broker_qty)} shares: one ledger entry of "
        f"{text.signed_shares(correction.difference)}, with your name and comment."
    ]
    if not correction.broker_qty:
        effects.append("The position closes.")
    elif correction.broker_average_price not in (None, correction.local_average_price):
        ours = correction.local_average_price
        instead = "" if ours is None else f" instead of {text.price(ours)}"
        effects.append(
            "Its average price becomes the broker's, "
            f"{text.price(correction.broker_average_price)}{instead}."
        )
    effects.append("No order is sent: nothing is bought or sold.")
    effects.append(
        "The broker is read once more at that moment. If anything has moved, nothing is booked "
        "and a new proposal is made."
    )
    return effects


def _moved(correction: Correction, position: Position) -> str:
    """Says so when the facts are no longer those the proposal rests on."""
    if correction.status != Correction.Status.PROPOSED:
        return ""
    if position.ledger_version != correction.ledger_version:
        return (
            f"Our book has moved since this was proposed: it now says {text.shares(position.qty)}. "
            "Approving would change nothing and make a new proposal."
        )
    read_since = position.broker_as_of is not None and position.broker_as_of > correction.watermark
    if read_since and position.broker_qty != correction.broker_qty:
        return (
            "The broker's figure has moved since this was proposed: it now says "
            f"{text.shares(position.broker_qty)}. Approving would change nothing and make a new "
            "proposal."
        )
    return ""
