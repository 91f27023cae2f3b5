"""What may explain a difference of a position. Pure; an explanation never makes it go away.

The codes and their figures are told in words by `reconciliation.words`.
"""

from collections.abc import Sequence
from decimal import Decimal

from orders import statuses
from ordinis.numbers import plain
from reconciliation.facts import (
    ZERO,
    Book,
    BookPosition,
    BrokerPosition,
    CorporateAction,
    Explanation,
    Facts,
    OutsideTrade,
)
from reconciliation.models import Kind
from reconciliation.splits import ratio_of, words


def explain(
    kind: Kind,
    symbol: str,
    ours: BookPosition,
    theirs: BrokerPosition,
    book: Book,
    facts: Facts,
) -> tuple[Explanation | None, Decimal | None]:
    """The likeliest explanation, and the average price of the trades outside where these account
    for all of it."""
    shares = theirs.qty - ours.qty
    actions = facts.actions.get(symbol, ())
    if kind == Kind.SPLIT:
        ratio = ratio_of(ours, theirs)
        told = any(action.kind == "SPLIT" for action in actions)
        return {"code": "split", "ratio": words(ratio) if ratio else "", "told": told}, None
    if action := _action(actions, shares):
        return {"code": "corporate_action", "kind": action.kind}, None
    if shares and (found := _outside(facts.trades.get(symbol, ()), shares)):
        return found
    return _on_its_way(symbol, shares, book), None


def _action(actions: Sequence[CorporateAction], shares: Decimal) -> CorporateAction | None:
    fitting = (action for action in actions if shares and action.qty == shares)
    return min(fitting, key=lambda action: action.kind, default=None)


def _outside(
    trades: Sequence[OutsideTrade], shares: Decimal
) -> tuple[Explanation, Decimal | None] | None:
    """The latest trades outside that come to these shares; else those that are a part of it."""
    total, cost = ZERO, ZERO
    for count, trade in enumerate(reversed(trades), start=1):
        total += trade.qty
        cost += trade.qty * trade.price
        if total == shares:
            price = (cost / total).quantize(Decimal("0.000000001"))
            return _told("external_trades", trades[-count:], total, price), price
    if not total or (total > 0) != (shares > 0):
        return None
    price = (cost / total).quantize(Decimal("0.000000001"))
    return _told("external_trades_in_part", trades, total, price), None


def _told(code: str, trades: Sequence[OutsideTrade], qty: Decimal, price: Decimal) -> Explanation:
    return {
        "code": code,
        "qty": plain(qty),
        "price": plain(price),
        "count": len(trades),
        "last_at": trades[-1].occurred_at.isoformat(),
        "orders": list(dict.fromkeys(trade.broker_order_id for trade in trades))[:10],
    }


def _on_its_way(symbol: str, shares: Decimal, book: Book) -> Explanation | None:
    """An order of ours whose fill only one side may know of yet."""
    of_symbol = sorted(
        (order for order in book.orders if order.symbol == symbol and order.is_open),
        key=lambda order: order.client_order_id,
    )
    for order in of_symbol:
        if order.status in statuses.UNPROVED:
            return {"code": "unresolved_order", "client_order_id": order.client_order_id}
    for order in of_symbol:
        left = order.qty - order.filled_qty
        signed = left if order.side == "buy" else -left
        if shares and (signed > 0) == (shares > 0) and abs(signed) >= abs(shares):
            return {
                "code": "fill_on_its_way",
                "client_order_id": order.client_order_id,
                "qty": plain(shares),
            }
    return None
