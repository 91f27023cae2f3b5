"""Whether an order may be replaced, and what its successor is.

Reads the venue, changes nothing: the successor that this makes is not taken in yet.
"""

from dataclasses import replace
from decimal import Decimal

from ordinis.simulator import checks, groups, matching, refusals
from ordinis.simulator.order import NONE, Order
from ordinis.simulator.request import ReplaceRequest
from ordinis.simulator.venue import Venue


def successor_of(venue: Venue, old: Order, request: ReplaceRequest) -> Order:
    """Raises Refusal."""
    _check_state(venue, old)
    qty = _quantity(old, request)
    limit_price = request.limit_price or old.limit_price
    stop_price = request.stop_price or old.stop_price
    _check_fields(old, request)
    if old.order_class:
        _check_exits(venue, old, limit_price=limit_price, stop_price=stop_price)
    else:
        checks.check_wash_trade(venue, old.symbol, old.side, old.type, limit_price)
    price = _reserve_price(old, limit_price, stop_price)
    _check_means(venue, old, shares=qty, price=price)
    now, time_in_force = venue.clock(), request.time_in_force or old.time_in_force
    return replace(
        old,
        id=venue.draws.identity(),
        client_order_id=request.client_order_id or venue.draws.identity(),
        sequence=len(venue.book),
        qty=qty,
        limit_price=limit_price,
        stop_price=stop_price,
        trail_price=request.trail if request.trail and old.trail_price else old.trail_price,
        trail_percent=request.trail if request.trail and old.trail_percent else old.trail_percent,
        time_in_force=time_in_force,
        expires_at=venue.market.expiry(
            now, time_in_force=time_in_force, extended_hours=old.extended_hours
        ),
        status="pending_new",
        created_at=now,
        updated_at=now,
        submitted_at=now,
        filled_qty=NONE,
        filled_value=NONE,
        filled_at=None,
        cancel_requested_at=None,
        replaces=old.id,
        legs=(),
        triggered=False,
        collar_price=None,
        busted=(),
        reserve_price=price,
        reserved=NONE,
    )


def _check_state(venue: Venue, old: Order) -> None:
    # A stop that is `held` behind its take-profit works there; one that waits for its entry does
    # not yet.
    is_waiting = old.status == "held" and groups.waits(venue, old)
    if is_waiting or old.status not in {"new", "partially_filled", "held"}:
        raise refusals.not_replaceable(old.status)
    if old.notional is not None:
        raise refusals.invalid("notional orders cannot be replaced")


def _quantity(old: Order, request: ReplaceRequest) -> Decimal:
    """The chain's total, what is filled already included."""
    if request.qty is None or request.qty == old.shares:
        return old.shares
    if old.shares != old.shares.to_integral_value():
        raise refusals.invalid("qty of fractional orders cannot be replaced")
    if old.order_class:
        raise refusals.invalid(f"qty of {old.order_class} orders cannot be replaced")
    if request.qty <= old.filled_qty:
        raise refusals.invalid("unable to replace order, qty must be > filled_qty")
    return request.qty


def _check_fields(old: Order, request: ReplaceRequest) -> None:
    """Each type has its prices, and only those can change."""
    has_stop = old.stop_price is not None and old.type != "trailing_stop"
    for name, given, fits in (
        ("limit_price", request.limit_price, old.limit_price is not None),
        ("stop_price", request.stop_price, has_stop),
        ("trail", request.trail, old.type == "trailing_stop"),
    ):
        if given is not None and not fits:
            raise refusals.invalid(f"{old.type} orders must not have {name}")
    if request.time_in_force is None:
        return
    is_whole = old.shares == old.shares.to_integral_value()
    if request.time_in_force != "day" and not is_whole:
        raise refusals.invalid("fractional orders must be DAY orders")
    bound = old.order_class or old.extended_hours or old.type not in {"market", "limit"}
    if request.time_in_force not in {"day", "gtc"} and bound:
        raise refusals.invalid("this order must be a DAY or GTC order")


def _check_exits(
    venue: Venue, old: Order, *, limit_price: Decimal | None, stop_price: Decimal | None
) -> None:
    if groups.is_entry(old):
        return
    for peer in groups.peers(venue, old):
        if peer.stop_price is not None:
            checks.check_exits(old.side, limit_price, peer.stop_price)
        elif stop_price is not None:
            checks.check_exits(old.side, peer.limit_price, stop_price)


def _reserve_price(old: Order, limit_price: Decimal | None, stop_price: Decimal | None) -> Decimal:
    if not old.opens:
        return NONE
    if old.type == "stop" and old.side == "buy" and stop_price is not None:
        return matching.collar(stop_price)
    price = limit_price or old.reserve_price
    return max(price, old.reserve_price) if old.position_intent == "sell_to_open" else price


def _check_means(venue: Venue, old: Order, *, shares: Decimal, price: Decimal) -> None:
    """Raises Refusal when the new quantity or price needs more than is free."""
    if old.opens:
        more = (shares - old.filled_qty) * price - old.reserved
        if more > 0:
            checks.check_cost(venue, more, marginable=venue.listing[old.symbol].marginable)
    elif groups.holds_shares(venue, old):
        checks.check_shares(venue, old.symbol, old.side, shares - old.filled_qty, without=old)
