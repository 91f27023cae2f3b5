"""What happens to positions and cash without a trade: splits, dividends, fees, deposits.

Each leaves an activity and an event about it. Prices, positions and open orders of a split symbol
move together or not at all.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from ordinis.simulator import wire_activities
from ordinis.simulator.order import NANO_SHARE, Order
from ordinis.simulator.refusals import plain
from ordinis.simulator.venue import Venue
from ordinis.simulator.wire import Json

_CENT = Decimal("0.01")
_NO_CUSIP = "000000000"


def book(
    venue: Venue,
    kind: str,
    *,
    sub_kind: str = "",
    net_amount: Decimal = Decimal(0),
    symbol: str | None = None,
    qty: Decimal | None = None,
    per_share: Decimal | None = None,
    description: str = "",
    details: Json | None = None,
) -> Json:
    """Move the cash and keep the activity; it, as the wire tells it."""
    now, identity = venue.clock(), venue.draws.identity()
    venue.portfolio.cash += net_amount
    venue.changes.account = True
    row = wire_activities.non_trade(
        kind=kind,
        sub_kind=sub_kind,
        identity=identity,
        group=venue.draws.identity(),
        moment=now,
        day=venue.market.today(now).isoformat(),
        net_amount=net_amount,
        description=description,
        symbol=symbol,
        qty=qty,
        per_share=per_share,
    )
    event = wire_activities.non_trade_event(row, identity, details or {})
    venue.book_activity(now, row, event)
    return row


def pay_dividend(venue: Venue, symbol: str, per_share: Decimal) -> Json | None:
    """What a position earns, or a short one owes; None where there is no position."""
    qty = venue.portfolio.qty(symbol)
    if not qty:
        return None
    paid = (qty * per_share).quantize(_CENT)
    return book(
        venue,
        "DIV",
        sub_kind="CDIV",
        net_amount=paid,
        symbol=symbol,
        qty=qty,
        per_share=per_share,
        description=f"Cash dividend of {plain(per_share)} per share of {symbol}",
        details={
            "position_date": venue.market.today(venue.clock()).isoformat(),
            "symbol": symbol,
            "cusip": _NO_CUSIP,
            "rate": plain(per_share),
            "foreign": False,
            "special": False,
            "entitled_qty": plain(qty),
            "cash_payout": plain(paid),
        },
    )


def split(venue: Venue, symbol: str, *, new: Decimal, old: Decimal) -> Json | None:
    """`new` shares for each `old`; the activity, or None where there is no position.

    A forward split adjusts open orders, a reverse one cancels them, as venues do.
    """
    ratio = new / old
    venue.prices.split(symbol, ratio)
    for order in venue.book.open(symbol):
        _adjust(venue, order, ratio)
    held = venue.portfolio.get(symbol)
    if held is None:
        venue.revalue([symbol])
        return None
    qty = (held.qty * ratio).quantize(NANO_SHARE)
    venue.set_position(symbol, qty, (held.average_price / ratio).quantize(NANO_SHARE))
    venue.revalue([symbol])
    return book(
        venue,
        "SPLIT",
        sub_kind="FSPLIT" if ratio > 1 else "RSPLIT",
        symbol=symbol,
        qty=qty - held.qty,
        description=f"{plain(new)} for {plain(old)} split of {symbol}",
        details={
            "position_date": venue.market.today(venue.clock()).isoformat(),
            "symbol": symbol,
            "old_cusip": _NO_CUSIP,
            "new_cusip": _NO_CUSIP,
            "old_rate": plain(old),
            "new_rate": plain(new),
            "old_qty": plain(held.qty),
            "new_qty": plain(qty),
        },
    )


def _adjust(venue: Venue, order: Order, ratio: Decimal) -> None:
    if ratio < 1:
        if order.is_open:
            venue.move(order, "canceled")
        return
    # In the owner's favour: a buy never pays more, a sale never brings less.
    rounding = ROUND_FLOOR if order.side == "buy" else ROUND_CEILING

    def per_new_share(price: Decimal | None) -> Decimal | None:
        return None if price is None else (price / ratio).quantize(_CENT, rounding)

    if order.qty is not None:
        order.qty = (order.qty * ratio).quantize(NANO_SHARE).normalize() + 0
    order.filled_qty = (order.filled_qty * ratio).quantize(NANO_SHARE)
    order.estimate = (order.estimate * ratio).quantize(NANO_SHARE)
    order.limit_price = per_new_share(order.limit_price)
    order.stop_price = per_new_share(order.stop_price)
    order.trail_price = per_new_share(order.trail_price)
    order.collar_price = per_new_share(order.collar_price)
    order.hwm = per_new_share(order.hwm)
    order.reserve_price /= ratio
    venue.move(order, order.status, "restated")
