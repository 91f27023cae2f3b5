"""What happens to an order by itself, and when: acknowledgement, fills, ends.

A schedule of due steps that somebody else's loop calls on; it never waits. It is rebuilt from the
orders after a restart, so it need not be stored; what a fault has put on it is lost then.
"""

import heapq
from collections.abc import Callable
from decimal import Decimal

from ordinis.simulator import groups, holding, matching
from ordinis.simulator.daily import Day
from ordinis.simulator.moments import SECOND
from ordinis.simulator.order import WORKING, Order, shares_for
from ordinis.simulator.venue import Venue

_IMMEDIATE = frozenset({"ioc", "fok", "opg"})


class Steps:
    """The venue's own doing, in order of time."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._due: list[tuple[int, int, str, str, str]] = []
        self._count = 0
        self.day = Day(venue, start=self.start, cancel=self.begin_cancel, match=self.match_now)
        self._actions: dict[str, Callable[[Order, str], object]] = {
            "acknowledge": lambda order, _detail: self._acknowledge(order),
            "match": lambda order, _detail: self._match(order),
            "cancel": lambda order, _detail: self.finish_cancel(order),
            "replace": lambda order, _detail: self._finish_replace(order),
            "late_fill": lambda order, _detail: self._fill_at_quote(order, order.remaining),
            "bust": self.bust,
        }

    @property
    def next_due(self) -> int | None:
        """The moment of the next step."""
        return self._due[0][0] if self._due else None

    def next_moment(self) -> int | None:
        """When the next thing happens at all: a step, a bell, the end of an order."""
        moments = [self.next_due, self.day.next_change()]
        return min((moment for moment in moments if moment is not None), default=None)

    def schedule(self, order: Order, action: str, delay: float, detail: str = "") -> None:
        self._count += 1
        due = self._venue.clock() + int(delay * SECOND)
        heapq.heappush(self._due, (due, self._count, action, order.id, detail))

    def run(self) -> None:
        """Take every step that is due."""
        now = self._venue.clock()
        while self._due and self._due[0][0] <= now:
            _, _, action, order_id, detail = heapq.heappop(self._due)
            self._actions[action](self._venue.book[order_id], detail)

    def restart(self) -> None:
        """The clock went back: what was due by it is put on the schedule anew."""
        self._due.clear()
        now = self._venue.clock()
        for order in self._venue.book.open():
            order.eligible_at = min(order.eligible_at, now)
        self.resume()

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
            self.match_now(order)

    def match_now(self, order: Order) -> None:
        order.eligible_at = 0
        self._match(order)

    def tick(self) -> None:
        """Prices moved once: revalue what is held, match what rests."""
        self._venue.prices.tick()
        self._venue.revalue()
        for order in self._venue.book.open():
            self._match(order)

    def fill(self, order: Order, qty: Decimal, price: Decimal) -> str:
        """Execute, and do what follows for the group that the order belongs to."""
        execution_id = self._venue.execute(order, qty, price)
        self.follow(order)
        if busted := self._venue.fault("bust_later", order):
            self.schedule(order, "bust", busted.seconds, execution_id)
        return execution_id

    def follow(self, order: Order) -> None:
        """An order moved: its group follows, and exits that set out meet the market."""
        if groups.is_entry(order) and order.status == "filled":
            self._fit_exits(order)
        for activated in groups.follow(self._venue, order):
            self.schedule(activated, "match", self._venue.options.fill_delay)

    def _fit_exits(self, entry: Order) -> None:
        """Exits get what no other order took while the entry was filling."""
        venue = self._venue
        exits = [leg for leg in venue.legs(entry) if leg.status == "held"]
        if not exits:
            return
        side, qty = exits[0].side, venue.portfolio.qty(entry.symbol)
        others = holding.held(venue, entry.symbol, side, without=exits[0])
        free = (qty if side == "sell" else -qty) - others
        for leg in exits:
            if free <= 0:
                venue.move(leg, "canceled")
            elif leg.shares > free:
                leg.qty = free
                venue.touch(leg)

    def bust(self, order: Order, execution_id: str, new: Decimal | None = None) -> None:
        """Take an execution back, or correct its price, once."""
        row = self._venue.activities.execution(execution_id)
        if row is None or execution_id in order.busted:
            return
        qty, price = Decimal(row["qty"]), Decimal(row["price"])
        self._venue.take_back(order, execution_id, qty=qty, price=price, new=new)

    def begin_cancel(self, order: Order) -> None:
        order.cancel_requested_at = self._venue.clock()
        self._venue.move(order, "pending_cancel")
        self.schedule(order, "cancel", self._venue.options.cancel_delay)

    def _acknowledge(self, order: Order) -> None:
        if order.status != "pending_new":
            return
        if self._venue.fault("reject_later", order):
            self._venue.move(order, "rejected")
            self.follow(order)
            return
        order.submitted_at = self._venue.clock()
        self._activate(order)

    def _activate(self, order: Order) -> None:
        """Put it on the venue's book."""
        venue = self._venue
        matching.trail(order, venue.prices[order.symbol])
        order.eligible_at = venue.clock() + int(venue.options.fill_delay * SECOND)
        status = "partially_filled" if order.filled_qty else "new"
        if groups.is_secondary(venue, order):
            status = "held"
        venue.move(order, status, "new", execution_id=venue.draws.identity())
        self.schedule(order, "match", venue.options.fill_delay)

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
        if status == "held" and order.order_class == "oco" and order.parent is not None:
            status = self._venue.book[order.parent].status
        if status not in WORKING:
            return False
        if order.time_in_force == "cls":
            return self.day.closing
        return self._venue.market.trades(now, extended_hours=order.extended_hours)

    def _set_off(self, order: Order) -> None:
        """A stop was reached. Of a group, the stop now stands alone."""
        order.triggered = True
        if order.type == "stop" and order.side == "buy" and order.stop_price is not None:
            order.collar_price = matching.collar(order.stop_price)
        self._venue.touch(order)
        for peer in groups.peers(self._venue, order):
            self._venue.move(peer, "canceled")
        if order.status == "held":
            self._venue.move(order, "new", execution_id=self._venue.draws.identity())

    def _portion(self, order: Order) -> Decimal:
        """All of it, or by chance a whole-share part."""
        remaining = order.remaining
        whole = int(remaining)
        chance = self._venue.options.partial_fill_probability
        if order.time_in_force == "fok" or order.notional is not None or whole < 2 or not chance:
            return remaining
        if not self._venue.draws.chance(chance):
            return remaining
        return Decimal(1 + self._venue.draws.below(whole - 1))

    def _end_if_immediate(self, order: Order) -> None:
        if order.time_in_force in _IMMEDIATE:
            self._venue.move(order, "canceled")

    def _fill_at_quote(self, order: Order, qty: Decimal) -> None:
        quote = self._venue.prices[order.symbol]
        if qty > 0:
            self.fill(order, qty, quote.ask if order.side == "buy" else quote.bid)

    def finish_cancel(self, order: Order) -> None:
        venue = self._venue
        if order.status == "pending_cancel" and self._loses_race(order):
            return
        if order.status == "filled":
            # The fill won the race.
            venue.emit(order, "order_cancel_rejected", venue.clock(), reason="TOO_LATE_TO_CANCEL")
        elif order.status == "pending_cancel":
            venue.move(order, "canceled")
            for member in groups.members(venue, order):
                if member.is_open:
                    venue.move(member, "canceled")
            if late := venue.fault("late_fill", order):
                self.schedule(order, "late_fill", late.seconds)

    def _loses_race(self, order: Order) -> bool:
        """What a fault lets happen while the order is being cancelled; whether it lives on."""
        venue = self._venue
        if venue.fault("cancel_rejected", order):
            status = "partially_filled" if order.filled_qty else "new"
            venue.move(order, status, "order_cancel_rejected", reason="REJECTED_BY_VENUE")
            return True
        if venue.fault("fill_while_cancelling", order):
            self._fill_at_quote(order, order.remaining)
        elif venue.fault("part_fill_while_cancelling", order):
            self._fill_at_quote(order, Decimal(int(order.remaining) // 2))
        return False

    def _finish_replace(self, successor: Order) -> None:
        """The old order gives way, unless it ended or filled beyond the new quantity meanwhile."""
        if successor.status != "pending_new" or successor.replaces is None:
            return
        venue, old = self._venue, self._venue.book[successor.replaces]
        if old.order_class:
            successor.qty = old.qty  # a partial profit may have shrunk it meanwhile
        replaceable = old.status == "pending_replace" and successor.shares > old.filled_qty
        if replaceable and not venue.fault("replace_rejected", old):
            successor.filled_qty, successor.filled_value = old.filled_qty, old.filled_value
            successor.filled_at = old.filled_at
            old.replaced_by = successor.id
            groups.hand_over(venue, old, successor)
            venue.move(old, "replaced")
            successor.submitted_at = venue.clock()
            self._activate(successor)
            return
        if old.status == "pending_replace":
            status = "partially_filled" if old.filled_qty else "new"
            if groups.is_secondary(venue, old):
                status = "held"
            venue.move(old, status, "order_replace_rejected")
        else:
            venue.emit(old, "order_replace_rejected", venue.clock())
        venue.move(successor, "rejected")
