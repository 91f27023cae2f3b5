"""What the market's bells do to orders: the open, the close, auctions, the end of a day.

Decides nothing about prices; `steps` starts, matches and cancels what this calls for.
"""

from collections.abc import Callable

from ordinis.simulator.moments import SECOND
from ordinis.simulator.order import WORKING, Order
from ordinis.simulator.venue import Venue

_DAY_LONG = ("day", "ioc", "fok", "opg", "cls")
_AGED_AFTER = 15 * 60 * SECOND  # an aged GTC order is cancelled at a quarter past the close


class Day:
    """The course of the trading days, for one venue."""

    def __init__(
        self,
        venue: Venue,
        *,
        start: Callable[[Order], None],
        cancel: Callable[[Order], None],
        match: Callable[[Order], None],
    ) -> None:
        self._venue = venue
        self._start = start
        self._cancel = cancel
        self._match = match
        self.closing = False  # the closing auction is being held

    def next_change(self) -> int | None:
        """The next bell or end of an order, by the clock."""
        venue = self._venue
        if venue.market.mode != "hours":
            return None
        now = venue.clock()
        ends = (self._ends_at(order) for order in venue.book.open())
        later = [moment for moment in ends if moment is not None and moment > now]
        return min([venue.market.hours(now).end, *later])

    def follow(self) -> None:
        """Let happen what the clock calls for."""
        venue, now = self._venue, self._venue.clock()
        if venue.market.mode == "hours":
            if venue.open_until is not None and now >= venue.open_until:
                self._ring_out()
            for order in venue.book.open():
                ends_at = self._ends_at(order)
                if ends_at is not None and ends_at <= now:
                    self._end(order)
            hours = venue.market.hours(now)
            is_open = hours.name == "open"
            until = hours.end if is_open else None
            if until != venue.open_until:
                venue.open_until = until
                venue.changes.account = True
                if is_open:
                    self._ring_in(hours.start)
        self._release(now)

    def change_mode(self, mode: str) -> None:
        """Somebody opens or closes the market by hand, or hands it to the clock."""
        venue, now = self._venue, self._venue.clock()
        was_open = venue.market.session(now) == "open"
        venue.market.mode = mode
        venue.changes.settings = True
        is_open = venue.market.session(now) == "open"
        if was_open and not is_open:
            self._ring_out()
            for order in venue.book.open():
                if order.status in WORKING | {"held"} and order.time_in_force in _DAY_LONG:
                    self._expire(order)
        venue.open_until = None
        if is_open and not was_open:
            self._ring_in(now)
        self.follow()

    def _ends_at(self, order: Order) -> int | None:
        """When it comes to its end by itself; None once that end is under way."""
        if order.expires_at is None or order.status == "pending_cancel":
            return None
        return order.expires_at + (_AGED_AFTER if order.time_in_force == "gtc" else 0)

    def _end(self, order: Order) -> None:
        if not order.is_open:
            return  # with another order of its group, just now
        if order.time_in_force != "gtc":
            self._expire(order)
        elif order.parent is None or not self._venue.book[order.parent].is_open:
            self._cancel(order)

    def _expire(self, order: Order) -> None:
        if self._venue.options.done_for_day and order.status in WORKING:
            self._venue.move(order, "done_for_day")
        unfilled = "canceled" if order.time_in_force in {"opg", "cls"} else "expired"
        self._venue.move(order, unfilled)

    def _ring_in(self, opened_at: int) -> None:
        """The open: orders for the opening auction are sent, rested ones go on."""
        for order in self._venue.book.open():
            is_for_opening = order.time_in_force == "opg" and order.status == "accepted"
            if is_for_opening and order.created_at < opened_at:
                self._send(order)
            elif order.status == "done_for_day":
                status = "partially_filled" if order.filled_qty else "new"
                self._venue.move(order, status, "new")

    def _ring_out(self) -> None:
        """The close: the auction, then the day's last prices and the account's last figures."""
        venue = self._venue
        self.closing = True
        for order in venue.book.open():
            if order.time_in_force == "cls":
                self._match(order)
        self.closing = False
        if venue.options.done_for_day:
            for order in venue.book.open():
                if order.time_in_force == "gtc" and order.status in {"new", "partially_filled"}:
                    venue.move(order, "done_for_day")
        venue.close_books()

    def _release(self, now: int) -> None:
        """Send what waited for a session that it can trade in."""
        venue = self._venue
        for order in venue.book.open():
            if order.status != "accepted" or order.time_in_force == "opg":
                continue
            if venue.market.trades(now, extended_hours=order.extended_hours):
                self._send(order)

    def _send(self, order: Order) -> None:
        self._venue.move(order, "pending_new")
        self._start(order)
