"""What a correction rests on and what it would change, laid side by side for the person who
decides. Reads what is stored; never asks the broker and changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from ordinis.console import text
from ordinis.console.breaks_evidence import Trail, trail
from ordinis.console.breaks_text import order_words
from positions.ledger import cash_of
from positions.models import Position
from reconciliation.models import Correction

Kind: Final = Correction.Kind


@dataclass(frozen=True, slots=True)
class Side:
    """One figure on which the book and the broker differ, in words."""

    name: str
    ours: str
    brokers: str
    difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What both sides are known to say now; shares, or dollars of cash."""

    ours: Decimal | None
    ours_at: datetime | None
    brokers: Decimal | None
    brokers_at: datetime | None
    moved: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything the page shows beside the correction itself."""

    sides: list[Side]
    present: Present
    trail: Trail


def evidence(correction: Correction) -> Evidence:
    """Gathers it: a fixed number of queries."""
    return Evidence(
        sides=_sides(correction),
        present=_present(correction),
        trail=trail(correction.subject, besides=correction),
    )


def action(correction: Correction) -> str:
    """What approving does, for a button: add −40 AAPL to the book."""
    symbol = correction.position.symbol if correction.position else ""
    shown = text.signed_shares(correction.difference)
    match correction.kind:
        case Kind.CASH:
            return f"add {text.signed_money(correction.difference)} to our cash"
        case Kind.SPLIT:
            return f"book the split, {shown} {symbol}"
        case Kind.AVERAGE_PRICE:
            return f"take over {text.price(correction.broker_average_price)} for {symbol}"
        case Kind.TRADE:
            return f"SEND AN ORDER to {order_words(correction)}"
        case _:
            return f"add {shown} {symbol} to the book"


def price_of(correction: Correction) -> Decimal | None:
    """Dollars a share at which it is valued."""
    position = correction.position
    return (
        (position.broker_price if position else None)
        or correction.broker_average_price
        or correction.local_average_price
    )


def _sides(correction: Correction) -> list[Side]:
    if correction.kind == Kind.CASH:
        apart = text.signed_money(correction.difference)
        ours, brokers = text.money(correction.local), text.money(correction.broker)
        return [Side("Cash", ours, brokers, apart)]
    sides = []
    if correction.difference:
        sides.append(
            Side(
                "Shares",
                text.shares(correction.local),
                text.shares(correction.broker),
                text.signed_shares(correction.difference),
            )
        )
    ours_at, brokers_at = correction.local_average_price, correction.broker_average_price
    if ours_at != brokers_at:
        both = ours_at is not None and brokers_at is not None
        sides.append(
            Side(
                "Average price",
                text.price(ours_at),
                text.price(brokers_at),
                _signed_price(brokers_at - ours_at) if both else text.NONE,  # type: ignore[operator]
            )
        )
    at = price_of(correction)
    if at is not None and correction.difference and correction.kind != Kind.SPLIT:
        sides.append(
            Side(
                f"Value at {text.price(at)}",
                text.money(correction.local * at),
                text.money(correction.broker * at),
                text.signed_money(correction.difference * at),
            )
        )
    return sides


def _signed_price(value: Decimal) -> str:
    return f"+{text.price(value)}" if value > 0 else text.price(value)


def _present(correction: Correction) -> Present:
    position = correction.position
    if position is None:
        account = correction.account
        ours = cash_of(account.pk)
        return Present(
            ours=ours,
            ours_at=None,
            brokers=account.cash,
            brokers_at=account.as_of,
            moved=_cash_moved(correction, ours),
        )
    return Present(
        ours=position.qty,
        ours_at=position.updated_at,
        brokers=position.broker_qty,
        brokers_at=position.broker_as_of,
        moved=_moved(correction, position),
    )


_INSTEAD: Final = "Approving would change nothing and make a new proposal."


def _moved(correction: Correction, position: Position) -> str:
    """Says so when the facts are no longer those the proposal rests on."""
    if correction.status != Correction.Status.PROPOSED:
        return ""
    if position.ledger_version != correction.ledger_version:
        return (
            "Our book has moved since this was proposed: it now says "
            f"{text.shares(position.qty)}. {_INSTEAD}"
        )
    if not _read_since(correction, position.broker_as_of):
        return ""
    if position.broker_qty != correction.broker:
        return (
            "The broker's figure has moved since this was proposed: it now says "
            f"{text.shares(position.broker_qty)}. {_INSTEAD}"
        )
    if position.broker_average_price != correction.broker_average_price:
        return (
            "The broker's average price has moved since this was proposed: it now says "
            f"{text.price(position.broker_average_price)}. {_INSTEAD}"
        )
    return ""


def _cash_moved(correction: Correction, ours: Decimal | None) -> str:
    if correction.status != Correction.Status.PROPOSED:
        return ""
    if ours is not None and ours != correction.local:
        return (
            f"Our cash has moved since this was proposed: it now is {text.money(ours)}. {_INSTEAD}"
        )
    account = correction.account
    if _read_since(correction, account.as_of) and account.cash != correction.broker:
        return (
            "The broker's cash has moved since this was proposed: it now says "
            f"{text.money(account.cash)}. {_INSTEAD}"
        )
    return ""


def _read_since(correction: Correction, at: datetime | None) -> bool:
    return at is not None and at > correction.watermark
