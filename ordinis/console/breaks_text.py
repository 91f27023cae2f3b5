"""What a break or a correction says in figures and words, in the unit of its kind. Pure: rows in,
text out.
"""

from decimal import Decimal
from typing import Final

from ordinis.console import text
from reconciliation.models import OF_ORDERS, OF_POSITIONS, Break, Correction, Kind

_DOLLARS: Final = frozenset({Kind.CASH, Kind.BUYING_POWER, Correction.Kind.CASH})
# The units of a figure, as `figure` takes them.
SHARES, DOLLARS, PRICE, COUNT = "shares", "money", "price", "count"
# What a list calls a kind.
KIND_WORDS: Final = {
    **{kind.value: str(kind.label).partition(":")[0].removesuffix(" differs") for kind in Kind},
    Kind.BUYING_POWER.value: "Buying power",
    Kind.MASS.value: "Mass difference",
}


def unit(kind: str) -> str:
    """In what a break or a correction of this kind counts."""
    if kind in _DOLLARS:
        return DOLLARS
    if kind == Kind.AVERAGE_PRICE:
        return PRICE
    return COUNT if kind == Kind.MASS else SHARES


def figure(value: Decimal | None, of: str) -> str:
    """100, $52,596.00 or $60.12345, by the unit."""
    if of == DOLLARS:
        return text.money(value)
    return text.price(value) if of == PRICE else text.shares(value)


def signed(value: Decimal | None, of: str) -> str:
    """The same with a sign, as every difference has one."""
    plus = "+" if value is not None and value > 0 else ""
    return plus + figure(value, of)


def ours(row: Break | Correction) -> str:
    """Our side of it: a figure, or an order's status."""
    if isinstance(row, Correction) and row.kind == Correction.Kind.AVERAGE_PRICE:
        return text.price(row.local_average_price)
    if row.kind == Kind.MASS:
        return f"{text.shares(row.local)} compared"
    if isinstance(row, Break) and row.kind in OF_ORDERS:
        return _of_order(row.local, row.local_status, row.kind)
    return figure(row.local, unit(row.kind))


def brokers(row: Break | Correction) -> str:
    """The broker's side of it."""
    if isinstance(row, Correction) and row.kind == Correction.Kind.AVERAGE_PRICE:
        return text.price(row.broker_average_price)
    if row.kind == Kind.MASS:
        return f"{text.shares(row.broker)} agree"
    if isinstance(row, Break) and row.kind in OF_ORDERS:
        return _of_order(row.broker, row.broker_status, row.kind)
    return figure(row.broker, unit(row.kind))


def _of_order(qty: Decimal, status: str, kind: str) -> str:
    if kind == Kind.ORDER_STATUS and status:
        return text.status(status)
    if not qty and not status:
        return text.NONE
    return f"{text.shares(qty)}, {text.status(status).lower()}" if status else text.shares(qty)


def differing(row: Break | Correction) -> str:
    """The broker's side less ours, with its sign."""
    if isinstance(row, Correction) and row.kind == Correction.Kind.AVERAGE_PRICE:
        before, after = row.local_average_price, row.broker_average_price
        return signed(None if before is None or after is None else after - before, PRICE)
    if row.kind == Kind.ORDER_STATUS:
        return text.NONE
    if row.kind == Kind.MASS:
        return f"{text.shares(-row.difference)} differ"
    return signed(row.difference, unit(row.kind))


def order_words(correction: Correction) -> str:
    """The trade that brings the broker back to our book: buy 40 AAPL."""
    assert correction.position is not None, "a trade is of a position"
    side = "sell" if correction.difference > 0 else "buy"
    return f"{side} {text.shares(abs(correction.difference))} {correction.position.symbol}"


def what(correction: Correction) -> str:
    """What a correction does, short: +5 NVDA in the book, or Sell 5 NVDA at the broker."""
    if correction.kind == Correction.Kind.TRADE:
        words = order_words(correction)
        return words[0].upper() + words[1:]
    return (
        f"{differing(correction)} {correction.position.symbol if correction.position else 'cash'}"
    )


def subject(row: Break) -> str:
    """What a break is about, short: KO; order rsi-1 (KO); cash."""
    if row.kind in OF_POSITIONS and row.symbol:
        return row.symbol
    if row.order_id is not None:
        return f"Order {row.order} ({row.symbol})"
    if row.kind in OF_ORDERS and row.broker_order_id:
        more = "…" if len(row.broker_order_id) > 8 else ""
        return f"Broker order {row.broker_order_id[:8]}{more} ({row.symbol})"
    return {Kind.CASH: "Cash", Kind.BUYING_POWER: "Buying power", Kind.MASS: "All positions"}.get(
        Kind(row.kind), row.symbol or row.subject
    )


def short(row: Break) -> str:
    """Subject and difference in one line: KO: −40 shares ($8,400.00)."""
    worth = "" if row.value is None else f" ({text.money(row.value)})"
    match row.kind:
        case Kind.MASS:
            what = f"{text.shares(-row.difference)} of {text.shares(row.local)} differ"
        case Kind.ORDER_STATUS:
            what = f"{ours(row)} here, {brokers(row).lower()} at the broker"
        case Kind.CASH | Kind.BUYING_POWER:
            return f"{subject(row)}: {differing(row)}"
        case Kind.AVERAGE_PRICE:
            what = f"{differing(row)} a share"
        case _:
            what = f"{differing(row)} shares"
    return f"{subject(row)}: {what}{worth}"


def sentence(row: Break) -> str:
    """Both sides in plain words."""
    left, right, apart = ours(row), brokers(row), differing(row)
    plain_left, plain_right = text.shares(row.local), text.shares(row.broker)
    match row.kind:
        case Kind.MASS:
            return (
                f"Of {text.shares(row.local)} positions and open orders compared, "
                f"{text.shares(-row.difference)} differ."
            )
        case Kind.AVERAGE_PRICE:
            return f"Our book's average price is {left}, the broker's {right}: {apart} a share."
        case Kind.CASH:
            return f"Our book says {left} of cash, the broker {right}: {apart}."
        case Kind.BUYING_POWER:
            return (
                f"From what has happened {left} of buying power follow, the broker says {right}: "
                f"{apart}."
            )
        case Kind.ORDER_MISSING:
            return f"Open here with {plain_left} shares left; unknown at the broker."
        case Kind.ORDER_EXTERNAL:
            return (
                f"The broker works an order for {text.signed_shares(row.broker)} {row.symbol} that "
                "was not placed by Ordinis."
            )
        case Kind.ORDER_STATUS:
            return f"Here it is {left.lower()}, at the broker {right.lower()}."
        case Kind.ORDER_FILL if row.subject.startswith("overfill/"):
            return f"It was for {plain_left} shares; {plain_right} have filled: {apart}."
        case Kind.ORDER_FILL:
            return f"Filled here {plain_left}, at the broker {plain_right}: {apart} shares."
        case Kind.TRADE_BUST:
            return (
                f"{left} shares of it had filled here; after what the broker took back or "
                f"corrected {right} stand: {apart} shares."
            )
        case _:
            return f"Our book says {left}, the broker {right}: {apart} shares."
