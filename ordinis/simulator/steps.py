"""What happens to an order by itself, and when: acknowledgement, fills, expiry, ends.

A schedule of due steps that somebody else's loop calls on; it never waits. It is rebuilt from the
orders after a restart, so it need not be stored.
"""

import heapq
import uuid
from decimal import Decimal

from ordinis.simulator import matching
from ordinis.simulator.moments import SECOND
from ordinis.simulator.order import WORKING, Order, shares_for
from ordinis.simulator.venue import Venue

_DAY_LONG = ("day", "ioc", "fok")


class Steps:
    """The venue's own doing, in order of time."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._due: list[tuple[int, int, str, str]] = []
        self._count = 0
        self._actions = {
            "acknowledge": self._acknowledge,
            "match": self._match,
            "cancel": self.finish_cancel,
            "replace": self._finish_replace,
        }

    @property
    def next_due(self) -> int | None:
        """The moment of the next step."""
        return self._due[0][0] if self._due else None

    def schedule(self, order: Order, action: str, delay: float) -> None:
        self._count += 1
        due = self._venue.clock() + int(delay * SECOND)
        heapq.heappush(self._due, (due, self._count, action, order.id))

    def run(self) -> None:
        """Take every step that is due."""
        now = self._venue.clock()
        while self._due and self._due[0][0] <= now:
            _, _, action, order_id = heapq.heappop(self._due)
            self._actions[action](self._venue.book[order_id])

    def resume(self) -> None:
        """After a restart: put every open order's next step on the schedule again."""
        options = self._venue.options
        for order in self._venue.book.open():
            if order.status == "pending_new":
                if order.replaces and self._venue.book[order.replaces].is_open:
                    self.schedule(order, "replace", options.replace_delay)
                else:
                    self.schedule(order, "acknowledge", options.new_delay)
            elif order.status == "pending_cancel":
                self.schedule(order, "cancel", options.cancel_delay)
            elif order.status in WORKING:
                self.schedule(order, "match", options.fill_delay)

    def start(self, order: Order) -> None:
        """An order was taken in while the market trades."""
        self.schedule(order, "acknowledge", self._venue.options.new_delay)

    def match_symbol(self, symbol: str) -> None:
        """A quote was put in place: whatever rests there meets it now, without delay."""
        for order in self._venue.book.open(symbol):
            order.eligible_at = 0
            self._match(order)

    def tick(self) -> None:
        """Prices moved once: revalue what is held, match what rests."""
        self._venue.prices.tick()
        self._venue.revalue()
        if self._venue.market.mode == "hours":
            self.follow_market()
        for order in self._venue.book.open():
            self._match(order)

    def follow_market(self) -> None:
        """Send waiting orders once the market opens; expire what outlived its day."""
        venue, now = self._venue, self._venue.clock()
        for order in venue.book.open():
            ends_by_itself = venue.market.mode == "hours"
            if ends_by_itself and order.expires_at is not None and order.expires_at <= now:
                venue.move(order, "expired")
            elif order.status == "accepted" and venue.market.trades(
                now, extended_hours=order.extended_hours
            ):
                venue.move(order, "pending_new")
                self.start(order)

    def end_day(self) -> None:
        """The market closed: day orders that were working expire, as at any close."""
        for order in self._venue.book.open():
            if order.status in WORKING | {"held"} and order.time_in_force in _DAY_LONG:
                self._venue.move(order, "expired")

    def fill(self, order: Order, qty: Decimal, price: Decimal) -> str:
        """Execute, and do what follows for the pair that the order belongs to."""
        execution_id = self._venue.execute(order, qty, price)
        self._settle_pair(order)
        return execution_id

    def _acknowledge(self, order: Order) -> None:
        if order.status != "pending_new":
            return
        order.submitted_at = self._venue.clock()
        self._activate(order)

    def _activate(self, order: Order) -> None:
        """Put it on the venue's book."""
        options = self._venue.options
        matching.trail(order, self._venue.prices[order.symbol])
        order.eligible_at = self._venue.clock() + int(options.fill_delay * SECOND)
        status = "partially_filled" if order.filled_qty else "new"
        self._venue.move(order, status, "new", execution_id=str(uuid.uuid4()))
        self.schedule(order, "match", options.fill_delay)

    def _match(self, order: Order) -> None:
        venue, now = self._venue, self._venue.clock()
        if not self._is_working(order, now):
            return
        quote = venue.prices[order.symbol]
        if matching.trail(order, quote):
            venue.touch(order)
        if matching.sets_off(order, quote):
            self._set_off(order)
        if now < order.eligible_at:
            return
        price = matching.fill_price(order, quote)
        if price is None:
            self._end_if_immediate(order)
            return
        if order.notional is not None:
            order.estimate = shares_for(order.notional, price)
        self.fill(order, self._portion(order), price)
        if order.is_open:
            order.eligible_at = now + int(venue.options.fill_delay * SECOND)
            self._end_if_immediate(order)
            self.schedule(order, "match", venue.options.fill_delay)

    def _is_working(self, order: Order, now: int) -> bool:
        """Whether it is on the venue's book now; a held stop is, while its sibling is."""
        status = order.status
        if status == "held" and order.parent is not None:
            status = self._venue.book[order.parent].status
        return status in WORKING and self._venue.market.trades(
            now, extended_hours=order.extended_hours
        )

    def _set_off(self, order: Order) -> None:
        """A stop was reached. Of a pair, the stop now stands alone."""
        order.triggered = True
        self._venue.touch(order)
        if order.parent is not None:
            self._venue.move(self._venue.book[order.parent], "canceled")
            self._venue.move(order, "new", execution_id=str(uuid.uuid4()))

    def _portion(self, order: Order) -> Decimal:
        """All of it, or by chance a whole-share part."""
        remaining = order.remaining
        whole = int(remaining)
        chance = self._venue.options.partial_fill_probability
        if order.time_in_force == "fok" or order.notional is not None or whole < 2 or not chance:
            return remaining
        if self._venue.random.random() >= chance:
            return remaining
        return Decimal(self._venue.random.randint(1, whole - 1))

    def _end_if_immediate(self, order: Order) -> None:
        if order.time_in_force in {"ioc", "fok"}:
            self._venue.move(order, "canceled")

    def finish_cancel(self, order: Order) -> None:
        venue = self._venue
        if order.status == "filled":
            # The fill won the race.
            venue.emit(order, "order_cancel_rejected", venue.clock(), reason="TOO_LATE_TO_CANCEL")
        elif order.status == "pending_cancel":
            venue.move(order, "canceled")
            for leg in venue.legs(order):
                if leg.is_open:
                    venue.move(leg, "canceled")

    def _finish_replace(self, successor: Order) -> None:
        """The old order gives way, unless it ended or filled beyond the new quantity meanwhile."""
        if successor.status != "pending_new" or successor.replaces is None:
            return
        venue, old = self._venue, self._venue.book[successor.replaces]
        if old.status == "pending_replace" and successor.shares > old.filled_qty:
            successor.filled_qty, successor.filled_value = old.filled_qty, old.filled_value
            successor.filled_at = old.filled_at
            old.replaced_by = successor.id
            venue.move(old, "replaced")
            successor.submitted_at = venue.clock()
            self._activate(successor)
            return
        if old.status == "pending_replace":
            venue.move(
                old, "partially_filled" if old.filled_qty else "new", "order_replace_rejected"
            )
        else:
            venue.emit(old, "order_replace_rejected", venue.clock())
        venue.move(successor, "rejected")

    def _settle_pair(self, order: Order) -> None:
        """One of a pair fills, the other gives way: wholly, or by as much."""
        venue = self._venue
        siblings = [venue.book[order.parent]] if order.parent else venue.legs(order)
        for sibling in siblings:
            if not sibling.is_open:
                continue
            if order.status == "filled":
                venue.move(sibling, "canceled")
            else:
                sibling.qty = sibling.filled_qty + order.remaining
                venue.touch(sibling)
