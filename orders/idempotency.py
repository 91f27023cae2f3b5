"""Whether what is asked for stands already: by client order id, and by content (SPEC O6).

Must never send or store an order; it only finds the standing one, and binds a second id to it.
"""

from collections.abc import Sequence

from orders import statuses
from orders.errors import OrderSubmissionError
from orders.models import BoundClientOrderId, Order
from ordinis.accounts.models import Strategy
from ordinis.numbers import plain


class ClientOrderIdReused(OrderSubmissionError):
    """The client id was used before, with another body or by another strategy of the account.
    `order` is the standing one where it is the caller's own."""

    def __init__(self, client_order_id: str, order: Order | None) -> None:
        super().__init__(
            "client_order_id_reused",
            f"client_order_id {client_order_id} was used before for another order. "
            "Use a new one for a new order.",
        )
        self.order = order


class OpenOrderExists(OrderSubmissionError):
    """An order of the same content but for its quantity, or its exits, is still open."""

    def __init__(self, order: Order, wanted: Order) -> None:
        other = (
            f"this is for {plain(wanted.qty)}" if order.qty != wanted.qty else "the exits differ"
        )
        super().__init__(
            "open_order_exists",
            f"{order.client_order_id} is still open: {order.side} {plain(order.qty)} "
            f"{order.symbol} on the same terms, but {other}. Replace or cancel that one, or set "
            "the limit duplicate_guard to no.",
        )
        self.order = order


_EXITS = (Order.Role.TAKE_PROFIT, Order.Role.STOP_LOSS)


def named(strategy: Strategy, client_order_id: str | None, fingerprint: str) -> Order | None:
    """The order that this client order id stands for. Raises ClientOrderIdReused."""
    if client_order_id is None:
        return None
    key = {"account_id": strategy.account_id, "client_order_id": client_order_id}
    own = list(Order.objects.filter(**key)[:1])
    if own:
        return _own(strategy, own[0], own[0].fingerprint == fingerprint, client_order_id)
    return bound(strategy, client_order_id, fingerprint)


def bound(strategy: Strategy, client_order_id: str | None, fingerprint: str) -> Order | None:
    """The order that this id was bound to. All there is to ask with the account locked: that an
    order has the id of its own the database finds when another is stored."""
    if client_order_id is None:
        return None
    key = {"account_id": strategy.account_id, "client_order_id": client_order_id}
    found = list(BoundClientOrderId.objects.filter(**key)[:1])
    if not found:
        return None
    return _own(strategy, found[0].order, found[0].fingerprint == fingerprint, client_order_id)


def _own(strategy: Strategy, order: Order, is_same: bool, client_order_id: str) -> Order:
    if order.strategy_id != strategy.pk:
        raise ClientOrderIdReused(client_order_id, None)
    order.strategy, order.account = strategy, strategy.account
    if not is_same:
        raise ClientOrderIdReused(client_order_id, order)
    return order


def alike(strategy: Strategy, wanted: Order, exits: Sequence[Order]) -> Order | None:
    """The open order of the same content, dependent ones aside; the newest where the guard had
    been off. Raises OpenOrderExists when only its quantity differs, or its exits: whoever asks for
    a stop-loss must not be given an order without."""
    found = list(
        Order.objects.exclude(status__in=sorted(statuses.CLOSED)).filter(
            strategy=strategy,
            account_id=strategy.account_id,
            symbol=wanted.symbol,
            side=wanted.side,
            type=wanted.type,
            limit_price=wanted.limit_price,
            stop_price=wanted.stop_price,
            trail_price=wanted.trail_price,
            trail_percent=wanted.trail_percent,
            time_in_force=wanted.time_in_force,
            extended_hours=wanted.extended_hours,
            reduce_only=wanted.reduce_only,
            parent=None,
        )[:50]
    )
    for order in found:
        order.strategy, order.account = strategy, strategy.account
    asked = {wanted.qty}
    of_this_qty = [order for order in found if asked & {order.qty, order.requested_qty}]
    same = next((order for order in of_this_qty if _exits_agree(order, exits)), None)
    if found and same is None:
        raise OpenOrderExists((of_this_qty or found)[0], wanted)
    return same


def _exits_agree(standing: Order, exits: Sequence[Order]) -> bool:
    if not (standing.has_dependents or exits):
        return True
    made_with_it = Order.objects.filter(
        parent__chain=standing.chain, role__in=_EXITS, replaces=None
    )
    stand = {(each.role, each.limit_price, each.stop_price) for each in made_with_it}
    return stand == {(each.role, each.limit_price, each.stop_price) for each in exits}


def bind(order: Order, client_order_id: str, fingerprint: str) -> None:
    """Gives a standing order a second id, for ever. Called with the account locked."""
    BoundClientOrderId.objects.create(
        account_id=order.account_id,
        client_order_id=client_order_id,
        fingerprint=fingerprint,
        order=order,
    )
