"""Compares book and broker. Pure: the same facts twice give the same differences, in one order.

What a side does not name counts as zero there, so the facts must come from a complete reading.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from reconciliation.explain import explain
from reconciliation.facts import (
    ZERO,
    Baseline,
    Book,
    BookOrder,
    BookPosition,
    BrokerOrder,
    BrokerPosition,
    Facts,
    Found,
    Tolerances,
)
from reconciliation.models import Kind
from reconciliation.splits import is_told, ratio_of

_SHARES = frozenset({Kind.ZOMBIE, Kind.ORPHAN, Kind.QUANTITY, Kind.SIDE})
_NOTHING = BookPosition(qty=ZERO)
_NONE = BrokerPosition(qty=ZERO)
CASH, BUYING_POWER, MASS = "account/cash", "account/buying_power", "account/positions"


def compare(book: Book, facts: Facts, tolerances: Tolerances | None = None) -> list[Found]:
    """Every difference: positions by symbol, then orders, then the account's figures.

    When too much differs anew at once it is one difference of kind `mass`, with these as its
    members: nothing may be concluded from each of them.
    """
    tolerances = tolerances or Tolerances()
    positions = list(_positions(book, facts, tolerances))
    orders = list(_orders(book, facts))
    mass = _mass(book, facts, [*positions, *orders], tolerances)
    if mass is not None:
        return [mass, *(item for item in (*positions, *orders) if item.subject in book.known)]
    return [*positions, *orders, *_account(book, facts, positions, tolerances)]


# --- positions ---------------------------------------------------------------------------------


def _positions(book: Book, facts: Facts, tolerances: Tolerances) -> Iterator[Found]:
    for symbol in sorted(book.positions.keys() | facts.positions.keys()):
        ours = book.positions.get(symbol, _NOTHING)
        theirs = facts.positions.get(symbol, _NONE)
        kind = _kind(ours, theirs, tolerances)
        shares_differ = kind in (Kind.QUANTITY, Kind.ORPHAN, Kind.ZOMBIE, Kind.SIDE)
        if shares_differ and is_told(facts.actions.get(symbol, ()), ours, theirs):
            kind = Kind.SPLIT  # with trades before or after it, so that no ratio fits
        if kind is None:
            continue
        average = kind == Kind.AVERAGE_PRICE
        local, broker = (
            (ours.average_price or ZERO, theirs.average_price or ZERO)
            if average
            else (ours.qty, theirs.qty)
        )
        explanation, trade_price = explain(kind, symbol, ours, theirs, book, facts)
        price = _price(ours, theirs, trade_price)
        worth = ours.qty if average else price
        yield Found(
            kind=kind,
            subject=f"position/{symbol}",
            symbol=symbol,
            local=local,
            broker=broker,
            local_average_price=ours.average_price,
            broker_average_price=theirs.average_price,
            ledger_version=ours.ledger_version,
            price=price,
            trade_price=trade_price,
            value=None if worth is None else abs((broker - local) * worth),
            explanation=explanation,
        )


def _price(
    ours: BookPosition, theirs: BrokerPosition, trade_price: Decimal | None
) -> Decimal | None:
    """The broker's present price; of what it does not hold any more the highest that is known: what
    is worth little by its cost alone must not pass a limit."""
    if theirs.price or theirs.average_price:
        return theirs.price or theirs.average_price
    known = [trade_price, ours.last_price, ours.average_price]
    return max((price for price in known if price is not None), default=None)


def _kind(ours: BookPosition, theirs: BrokerPosition, tolerances: Tolerances) -> Kind | None:
    if ours.qty == theirs.qty:
        apart = bool(ours.qty) and _averages_differ(ours, theirs, tolerances)
        return Kind.AVERAGE_PRICE if apart else None
    if not theirs.qty:
        return Kind.ZOMBIE
    if not ours.qty:
        return Kind.ORPHAN
    if (ours.qty > 0) != (theirs.qty > 0):
        return Kind.SIDE
    return Kind.SPLIT if ratio_of(ours, theirs) else Kind.QUANTITY


def _averages_differ(ours: BookPosition, theirs: BrokerPosition, tolerances: Tolerances) -> bool:
    """Where a side has none there is nothing to compare."""
    if ours.average_price is None or theirs.average_price is None:
        return False
    apart = abs(theirs.average_price - ours.average_price)
    allowed = abs(theirs.average_price) * tolerances.average_price_pct / 100
    return apart > max(allowed, tolerances.average_price)


# --- orders ------------------------------------------------------------------------------------


def _orders(book: Book, facts: Facts) -> Iterator[Found]:
    ours = {order.broker_order_id: order for order in book.orders if order.broker_order_id}
    by_client_id = {order.client_order_id for order in book.orders}
    # A list that was read page by page can name an order twice.
    listed = {order.broker_order_id: order for order in facts.orders}
    for order in sorted(ours.values(), key=_place):
        if order.is_open and order.broker_order_id in facts.missing - listed.keys():
            yield _of_order(Kind.ORDER_MISSING, order, order.qty - order.filled_qty, ZERO)
    for theirs in sorted(listed.values(), key=lambda each: (each.symbol, each.broker_order_id)):
        known = ours.get(theirs.broker_order_id)
        if known is not None:
            yield from _differing(known, theirs)
        elif theirs.client_order_id not in by_client_id:
            yield _external(theirs)


def _differing(ours: BookOrder, theirs: BrokerOrder) -> Iterator[Found]:
    if ours.moved:
        return  # the list may be older than what we know
    if ours.filled_qty != theirs.filled_qty:
        yield _of_order(
            Kind.ORDER_FILL, ours, ours.filled_qty, theirs.filled_qty, theirs.status, theirs.price
        )
    elif ours.status != theirs.status:
        yield _of_order(
            Kind.ORDER_STATUS, ours, ours.filled_qty, theirs.filled_qty, theirs.status, theirs.price
        )


def _of_order(
    kind: Kind,
    order: BookOrder,
    local: Decimal,
    broker: Decimal,
    status: str = "",
    price: Decimal | None = None,
) -> Found:
    return Found(
        kind=kind,
        subject=f"order/{order.broker_order_id}",
        symbol=order.symbol,
        local=local,
        broker=broker,
        order=order.id,
        broker_order_id=order.broker_order_id or "",
        local_status=order.status,
        broker_status=status,
        price=price,
        value=None if price is None or local == broker else abs((broker - local) * price),
    )


def _external(order: BrokerOrder) -> Found:
    left = ZERO if order.qty is None else order.qty - order.filled_qty
    signed = left if order.side == "buy" else -left
    return Found(
        kind=Kind.ORDER_EXTERNAL,
        subject=f"order/{order.broker_order_id}",
        symbol=order.symbol,
        broker=signed,
        broker_order_id=order.broker_order_id,
        broker_status=order.status,
        price=order.price,
        value=None if order.price is None else abs(left * order.price),
    )


def _place(order: BookOrder) -> tuple[str, str]:
    return order.symbol, order.broker_order_id or ""


# --- the account -------------------------------------------------------------------------------


def _account(
    book: Book, facts: Facts, positions: list[Found], tolerances: Tolerances
) -> Iterator[Found]:
    if _is_settled(positions) and book.cash is not None and facts.cash is not None:
        apart = abs(facts.cash - book.cash)
        if apart > tolerances.cash:
            yield Found(
                kind=Kind.CASH, subject=CASH, local=book.cash, broker=facts.cash, value=apart
            )
    if book.baseline is not None and facts.standing is not None and _is_measured(book, facts):
        expected = expected_buying_power(book.baseline, facts.standing)
        allowed = buying_power_tolerance(book.baseline, facts.standing, tolerances)
        apart = abs(facts.standing.buying_power - expected)
        if apart > allowed:
            yield Found(
                kind=Kind.BUYING_POWER,
                subject=BUYING_POWER,
                local=expected.quantize(Decimal("0.01")),
                broker=facts.standing.buying_power,
                value=apart,
            )


def uncompared(book: Book, facts: Facts, found: list[Found]) -> frozenset[str]:
    """What of the account could not be compared this time: that it is not among the differences
    says nothing."""
    cash = book.cash is None or facts.cash is None or not _is_settled(found)
    return frozenset(
        [*([CASH] if cash else []), *([] if _is_measured(book, facts) else [BUYING_POWER])]
    )


def _is_settled(found: list[Found]) -> bool:
    """A fill that only one side knows yet moves shares and money together: the shares tell."""
    return not any(item.kind in _SHARES and not _traded_outside(item) for item in found)


def _is_measured(book: Book, facts: Facts) -> bool:
    """At nought it is not known how far below it would be."""
    before, now = book.baseline, facts.standing
    return (
        before is not None
        and now is not None
        and before.buying_power > 0
        and before.multiplier == now.multiplier
    )


def _traded_outside(item: Found) -> bool:
    return item.explanation is not None and item.explanation["code"] == "external_trades"


def expected_buying_power(before: Baseline, now: Baseline) -> Decimal:
    """What buying power follows from what has happened since: it grows with equity by the
    account's multiplier, and what is held or on order takes its full value away. The broker's own
    formula is not published; these differences hold for cash, Reg T and intraday margin alike. It
    is never less than nothing."""
    expected = (
        before.buying_power
        + now.multiplier * (now.equity - before.equity)
        - (now.gross - before.gross)
        - (now.reserved - before.reserved)
    )
    return max(expected, ZERO)


def buying_power_tolerance(before: Baseline, now: Baseline, tolerances: Tolerances) -> Decimal:
    turnover = abs(now.gross - before.gross) + abs(now.reserved - before.reserved)
    return max(
        tolerances.buying_power,
        abs(now.equity) * now.multiplier * tolerances.buying_power_pct / 100,
        turnover * tolerances.buying_power_turnover_pct / 100,
    )


# --- too much at once --------------------------------------------------------------------------


def _mass(book: Book, facts: Facts, found: list[Found], tolerances: Tolerances) -> Found | None:
    new = [item for item in found if item.subject not in book.known]
    counted = [item for item in new if item.kind in _SHARES or item.kind == Kind.ORDER_MISSING]
    compared = _count(book, facts)
    if len(counted) < tolerances.mass_least:
        return None
    if Decimal(100 * len(counted)) <= tolerances.mass_pct * compared:
        return None
    values = [item.value for item in counted if item.value is not None]
    return Found(
        kind=Kind.MASS,
        subject=MASS,
        local=Decimal(compared),
        broker=Decimal(compared - len(counted)),
        value=sum(values, ZERO) if values else None,
        explanation={
            "code": "mass",
            "positions": len(counted),
            "of": compared,
            "symbols": [item.symbol for item in counted[:20]],
            "hint": _hint(book.positions, facts.positions),
        },
        members=tuple(new),
    )


def _count(book: Book, facts: Facts) -> int:
    held = {symbol for symbol, position in book.positions.items() if position.qty}
    theirs = {symbol for symbol, position in facts.positions.items() if position.qty}
    open_here = [order for order in book.orders if order.is_open and order.broker_order_id]
    return len(held | theirs) + len(open_here)


def _hint(ours: Mapping[str, BookPosition], theirs: Mapping[str, BrokerPosition]) -> str:
    """What it looks like: an account without positions was begun anew, or answered wrongly; one
    that shares no symbol with the book is another."""
    held = {symbol for symbol, position in theirs.items() if position.qty}
    known = {symbol for symbol, position in ours.items() if position.qty}
    if known and not held:
        return "account_reset"
    return "wrong_account" if known and held and not known & held else ""


__all__ = ["BUYING_POWER", "CASH", "MASS", "compare", "uncompared"]
