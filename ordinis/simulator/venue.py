"""The state of the exchange and the few ways in which it may change.

Orders, positions, cash, activities and the events about them move here and nowhere else, so that
what must be stored and what must be streamed can't be forgotten. Pure: no input or output, no
waiting. When things happen is decided in `steps`, whether they may in `checks`.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from ordinis.simulator import moments, wire, wire_activities
from ordinis.simulator.activities import ActivityLog
from ordinis.simulator.book import Book
from ordinis.simulator.changes import Changes
from ordinis.simulator.draws import Draws
from ordinis.simulator.faults import Fault
from ordinis.simulator.history import ACTIVITIES, TRADES, Event
from ordinis.simulator.holidays import next_trading_day
from ordinis.simulator.market import Market
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


def _no_fault(_kind: str, _order: Order) -> Fault | None:
    return None


class Venue:
    """One account at one exchange."""

    def __init__(self, clock: Clock, seed: int, cash: Decimal = INITIAL_CASH) -> None:
        self.clock = clock
        self.draws = Draws(seed)
        # Whether the venue is to do something wrong with an order: the faults' to say.
        self.fault: Callable[[str, Order], Fault | None] = _no_fault
        self.listing = Listing()
        self.prices = Prices(seed, self.listing)
        self.market = Market()
        self.options = Options()
        self.portfolio = Portfolio(cash)
        self.configuration = default_configuration()
        self.book = Book()
        self.activities = ActivityLog()
        self.opened_at = clock()
        self.open_until: int | None = None  # the end of the session that orders live in
        self.last_event_id = 0
        self.changes = Changes()
        self.events: list[Event] = []

    def take_changes(self) -> Changes:
        changes, self.changes = self.changes, Changes()
        return changes

    def take_events(self) -> list[Event]:
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
        """Fill a part or all of an order; the execution's id.

        An order that ended before stays as it is unless this completes it: a late fill.
        """
        now, execution_id = self.clock(), self.draws.identity()
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
            settle_date=self.settles(now),
        )
        return execution_id

    def take_back(
        self, order: Order, execution_id: str, *, qty: Decimal, price: Decimal, new: Decimal | None
    ) -> str:
        """Bust an execution, or let it stand at a new price; the id of this execution report."""
        now, report_id = self.clock(), self.draws.identity()
        event = "trade_bust" if new is None else "trade_correct"
        signed = qty if order.side == "buy" else -qty
        self._trade(order.symbol, -signed, price)
        order.filled_value -= qty * price
        if new is None:
            order.filled_qty -= qty
        else:
            self._trade(order.symbol, signed, new)
            order.filled_value += qty * new
        order.busted += (execution_id,)
        order.updated_at = now
        self._resettle(order)
        told = price if new is None else new
        moved = -qty if new is None else qty
        self.emit(
            order,
            event,
            now,
            previous_execution_id=execution_id,
            execution_id=report_id,
            qty=plain(moved),
            price=plain(told),
            position_qty=plain(self.portfolio.qty(order.symbol)),
        )
        self.tell_activity(
            now,
            wire_activities.trade_event(
                order, event, report_id, moved, told, previous_id=execution_id
            ),
        )
        return report_id

    def settles(self, moment: int) -> str:
        """The date on which a trade of that moment settles."""
        return next_trading_day(self.market.today(moment)).isoformat()

    def emit(self, order: Order, event: str, moment: int, **extra: object) -> None:
        """Put an event about an order on the order stream."""
        event_id = self._next_event_id(moment)
        body = {
            "at": f"{moments.text(moment)[:-4]}Z",
            "event_id": event_id,
            "event": event,
            "timestamp": moments.text(moment),
            "order": wire.streamed_order(order, self.legs(order) if order.legs else ()),
            **extra,
        }
        self.events.append(Event(TRADES, event_id, moment, order.id, body))

    def tell_activity(self, moment: int, body: Json) -> None:
        """Put an event on the stream of activities."""
        event_id = self._next_event_id(moment)
        common = {
            "event_id": event_id,
            "at": moments.text(moment),
            "executed_at": moments.text(moment),
            "settle_date": self.settles(moment),
        }
        self.events.append(Event(ACTIVITIES, event_id, moment, "", {**common, **body}))

    def _next_event_id(self, moment: int) -> str:
        self.last_event_id = moments.next_ulid(moment, self.last_event_id, self.draws.noise(10))
        self.changes.account = True
        return moments.ulid_text(self.last_event_id)

    def book_activity(self, moment: int, row: Json, event: Json) -> None:
        """Keep an activity for good, and tell of it."""
        self.activities.add(row, moment)
        self.changes.activities.append(row)
        self.tell_activity(moment, event)

    def set_position(self, symbol: str, qty: Decimal, average_price: Decimal) -> None:
        """Without an order: a transfer or a corporate action."""
        self.portfolio.set(symbol, qty, average_price)
        self._position_changed(symbol)

    def set_cash(self, cash: Decimal) -> None:
        """Stage the account anew: the session starts from here."""
        self.portfolio.cash = cash
        self.portfolio.last_equity = self.portfolio.equity
        self.changes.account = True

    def close_books(self) -> None:
        """The day is over: what its last figures were is told from now on."""
        self.portfolio.last_equity = self.portfolio.equity
        self.portfolio.last_maintenance_margin = self.portfolio.maintenance_margin
        self.prices.mark_close()
        self.changes.account = self.changes.prices = True

    def revalue(self, symbols: Iterable[str] | None = None) -> None:
        """After prices moved: margin and equity of what is held."""
        held = [it.symbol for it in self.portfolio] if symbols is None else symbols
        for symbol in held:
            self.portfolio.revalue(self.listing[symbol], self.prices[symbol].last)
        self.changes.prices = True

    def buying_power(self) -> Decimal:
        return self.portfolio.buying_power(
            self.options.buying_power_margin, int(self.configuration["max_margin_multiplier"])
        )

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
        row = wire_activities.fill(
            order, moment=moment, execution_id=execution_id, qty=qty, price=price
        )
        event = wire_activities.trade_event(order, "fill", execution_id, qty, price)
        self.book_activity(moment, row, event)

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
