"""The state of the exchange and the few ways in which it may change.

Orders, positions, cash, activities and the events about them move here and nowhere else, so that
what must be stored and what must be streamed can't be forgotten. Pure: no input or output, no
waiting. When things happen is decided in `steps`, whether they may in `checks`.
"""

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ordinis.simulator import moments, wire
from ordinis.simulator.book import Book
from ordinis.simulator.market import Market, next_trading_day
from ordinis.simulator.moments import Clock
from ordinis.simulator.options import Options
from ordinis.simulator.order import NONE, Order
from ordinis.simulator.portfolio import Portfolio
from ordinis.simulator.prices import Prices
from ordinis.simulator.refusals import plain
from ordinis.simulator.symbols import Asset, Listing
from ordinis.simulator.wire import Json

INITIAL_CASH = Decimal("1000000")
# What the moment of each end is called.
_MOMENTS = {
    "filled": "filled_at",
    "canceled": "canceled_at",
    "expired": "expired_at",
    "rejected": "failed_at",
    "replaced": "replaced_at",
}


@dataclass(slots=True)
class Changes:
    """What must be stored before anybody is told."""

    orders: dict[str, Order] = field(default_factory=dict)
    positions: set[str] = field(default_factory=set)
    activities: list[Json] = field(default_factory=list)
    account: bool = False
    prices: bool = False
    settings: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.orders
            or self.positions
            or self.activities
            or self.account
            or self.prices
            or self.settings
        )


def default_configuration() -> dict[str, Any]:
    return {
        "no_shorting": False,
        "suspend_trade": False,
        "fractional_trading": True,
        "max_margin_multiplier": "4",
        "trade_confirm_email": "all",
        "ptp_no_exception_entry": False,
        "max_options_trading_level": 0,
        "disable_overnight_trading": False,
    }


class Venue:
    """One account at one exchange."""

    def __init__(self, clock: Clock, seed: int, cash: Decimal = INITIAL_CASH) -> None:
        self.clock = clock
        self.random = random.Random(seed)  # for chance only; identities are never seeded
        self.listing = Listing()
        self.prices = Prices(seed, self.listing)
        self.market = Market()
        self.options = Options()
        self.portfolio = Portfolio(cash)
        self.configuration = default_configuration()
        self.book = Book()
        self.activities: list[Json] = []
        self.opened_at = clock()
        self.last_event_id = 0
        self.changes = Changes()
        self.events: list[Json] = []

    def take_changes(self) -> Changes:
        changes, self.changes = self.changes, Changes()
        return changes

    def take_events(self) -> list[Json]:
        events, self.events = self.events, []
        return events

    def touch(self, order: Order) -> None:
        self.changes.orders[order.id] = order

    def add_asset(self, asset: Asset) -> None:
        """Make one more instrument tradable."""
        self.listing.add(asset)
        self.prices.add(asset)
        self.changes.settings = self.changes.prices = True

    def legs(self, order: Order) -> list[Order]:
        return [self.book[leg] for leg in order.legs]

    def accept(self, order: Order, *, announce: bool = True) -> None:
        """Take an order in. From here its client_order_id is spent for ever."""
        self.book.add(order)
        self._reserve(order)
        self.touch(order)
        if announce:
            self.emit(order, order.status, order.created_at)

    def move(self, order: Order, status: str, event: str | None = None, **extra: object) -> None:
        """Change an order's status, and tell the stream of it (under the status' own name)."""
        now = self.clock()
        order.status, order.updated_at = status, now
        if status in _MOMENTS:
            setattr(order, _MOMENTS[status], now)
        self._resettle(order)
        self.emit(order, event or status, now, **extra)

    def execute(self, order: Order, qty: Decimal, price: Decimal) -> str:
        """Fill a part or all of an order; the execution's id."""
        now, execution_id = self.clock(), str(uuid.uuid4())
        order.filled_qty += qty
        order.filled_value += qty * price
        order.updated_at = order.filled_at = now
        if order.filled_qty >= order.shares:
            order.status = "filled"
        elif order.status in {"new", "accepted", "pending_new"}:
            order.status = "partially_filled"  # a cancel or replace under way stays visible
        after = self._trade(order.symbol, qty if order.side == "buy" else -qty, price)
        self._resettle(order)
        self._record_fill(order, now, execution_id, qty, price)
        self.emit(
            order,
            "fill" if order.status == "filled" else "partial_fill",
            now,
            price=plain(price),
            qty=plain(qty),
            position_qty=plain(after),
            execution_id=execution_id,
            settle_date=next_trading_day(self.market.today(now)).isoformat(),
        )
        return execution_id

    def take_back(
        self,
        order: Order,
        execution_id: str,
        *,
        qty: Decimal,
        price: Decimal,
        corrected: Decimal | None,
    ) -> None:
        """Bust an execution, or let it stand at a corrected price."""
        now = self.clock()
        signed = qty if order.side == "buy" else -qty
        self._trade(order.symbol, -signed, price)
        order.filled_value -= qty * price
        if corrected is None:
            order.filled_qty -= qty
        else:
            self._trade(order.symbol, signed, corrected)
            order.filled_value += qty * corrected
        order.updated_at = now
        self.touch(order)
        self.emit(
            order,
            "trade_bust" if corrected is None else "trade_correct",
            now,
            previous_execution_id=execution_id,
            execution_id=str(uuid.uuid4()),
            qty=plain(-qty if corrected is None else qty),
            price=plain(price if corrected is None else corrected),
            position_qty=plain(self.portfolio.qty(order.symbol)),
        )

    def emit(self, order: Order, event: str, moment: int, **extra: object) -> None:
        self.last_event_id = moments.next_ulid(moment, self.last_event_id)
        self.changes.account = True
        self.events.append(
            {
                "at": f"{moments.text(moment)[:-4]}Z",
                "event_id": moments.ulid_text(self.last_event_id),
                "event": event,
                "timestamp": moments.text(moment),
                "order": wire.streamed_order(order, self.legs(order)),
                **extra,
            }
        )

    def set_position(self, symbol: str, qty: Decimal, average_price: Decimal) -> None:
        """Without an order: a transfer or a corporate action."""
        self.portfolio.set(symbol, qty, average_price)
        self._position_changed(symbol)

    def set_cash(self, cash: Decimal) -> None:
        """Stage the account anew: the session starts from here."""
        self.portfolio.cash = cash
        self.portfolio.last_equity = self.portfolio.equity
        self.changes.account = True

    def revalue(self, symbols: Iterable[str] | None = None) -> None:
        """After prices moved: margin and equity of what is held."""
        held = [it.symbol for it in self.portfolio] if symbols is None else symbols
        for symbol in held:
            self.portfolio.revalue(self.listing[symbol], self.prices[symbol].last)
        self.changes.prices = True

    def committed(self, order: Order) -> Decimal:
        """Shares that an open order holds, beyond what the order that it replaces holds."""
        if order.replaces and order.status == "pending_new":
            return max(order.remaining - self.book[order.replaces].remaining, NONE)
        return order.remaining

    def reducing(self, symbol: str, side: str) -> list[Order]:
        """Open orders that take off the position; the leg of a pair counts with its parent."""
        return [
            order
            for order in self.book.open(symbol)
            if order.side == side
            and not order.opens
            and (order.parent is None or not self.book[order.parent].is_open)
        ]

    def available(self, symbol: str) -> Decimal:
        """The signed quantity that no open order holds."""
        qty = self.portfolio.qty(symbol)
        side = "sell" if qty > 0 else "buy"
        held = sum((self.committed(order) for order in self.reducing(symbol, side)), NONE)
        return max(qty - held, NONE) if qty > 0 else min(qty + held, NONE)

    def buying_power(self) -> Decimal:
        return self.portfolio.buying_power(self.options.buying_power_margin)

    def _trade(self, symbol: str, signed_qty: Decimal, price: Decimal) -> Decimal:
        after = self.portfolio.trade(symbol, signed_qty, price)
        self._position_changed(symbol)
        return after

    def _position_changed(self, symbol: str) -> None:
        self.portfolio.revalue(self.listing[symbol], self.prices[symbol].last)
        self.changes.positions.add(symbol)
        self.changes.account = True

    def _record_fill(
        self, order: Order, moment: int, execution_id: str, qty: Decimal, price: Decimal
    ) -> None:
        activity = wire.fill_activity(
            order, moment=moment, execution_id=execution_id, qty=qty, price=price
        )
        self.activities.append(activity)
        self.changes.activities.append(activity)

    def _resettle(self, order: Order) -> None:
        self.book.sort(order)
        self._reserve(order)
        self.touch(order)

    def _reserve(self, order: Order) -> None:
        """Hold as much buying power as the order's open remainder needs."""
        wanted = NONE
        if order.is_open:
            wanted = order.remaining * order.reserve_price
            if order.replaces and order.status == "pending_new":
                # The larger of old and new while the replacement is under way.
                wanted = max(wanted - self.book[order.replaces].reserved, NONE)
        if wanted != order.reserved:
            self.portfolio.reserved += wanted - order.reserved
            order.reserved = wanted
            self.changes.account = True
