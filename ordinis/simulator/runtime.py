"""The exchange in real time: stores each change, then tells of it, and keeps the clock going.

One event loop, one thread, so that every request and every step is whole before the next begins.
"""

import asyncio
import logging
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

from ordinis.simulator import snapshot, wire
from ordinis.simulator.clock import VenueClock
from ordinis.simulator.doors import Doors
from ordinis.simulator.eventsource import EventSources
from ordinis.simulator.exchange import Exchange
from ordinis.simulator.faults import Fault, Faults
from ordinis.simulator.history import TRADES, Told
from ordinis.simulator.holidays import previous_trading_day
from ordinis.simulator.journal import Journal
from ordinis.simulator.lag import DelayedPositions, orders_at
from ordinis.simulator.moments import SECOND
from ordinis.simulator.order import Order
from ordinis.simulator.portfolio import Position
from ordinis.simulator.storage import Storage
from ordinis.simulator.stream import Stream
from ordinis.simulator.venue import INITIAL_CASH
from ordinis.simulator.wire import Json

_log = logging.getLogger(__name__)


class Runtime:
    """Everything that runs behind one port."""

    def __init__(self, *, seed: int, state_path: Path | None) -> None:
        self.seed = seed
        self.clock = VenueClock()
        self.faults = Faults(seed)
        self.stream = Stream(self.faults)
        self.sources = EventSources(self.faults, self.clock)
        self.journal = Journal()
        self.prices_held = False
        self.doors: Doors | None = None  # opened by the server
        self._storage = Storage(state_path) if state_path else None
        self._alarm: asyncio.TimerHandle | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._install(Exchange(self.clock, seed))
        if self._storage is not None and (stored := self._storage.load()) is not None:
            self._restore(stored, self._storage.events())
        self._store_everything()

    def _install(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.venue.fault = self._order_fault
        exchange.venue.draws.repeatable = self.clock.held
        self.sources.options = exchange.venue.options
        self._delayed = DelayedPositions(exchange.venue.portfolio)

    def _restore(self, stored: Json, events: Iterable[Told]) -> None:
        """Put what was dumped in the place of what is."""
        exchange = Exchange(self.clock, self.seed)
        host = snapshot.load(exchange.venue, stored)
        if host:
            self.clock.load(host["clock"])
            self.prices_held = host["prices_held"]
        self._install(exchange)
        self.sources.forget()
        self.sources.publish(list(events))
        exchange.steps.resume()

    def _order_fault(self, kind: str, order: Order) -> Fault | None:
        if self.faults.idle:
            return None
        return self.faults.for_order(kind, f"{order.symbol} {order.client_order_id}")

    def _store_everything(self) -> None:
        changes = self.exchange.venue.changes
        changes.account = changes.prices = changes.settings = True
        self.settle()

    def settle(self) -> None:
        """Store what changed, then send the events. Call before any answer goes out.

        While the clock is held, what is due at its moment happens here as well.
        """
        self._tell()
        steps = self.exchange.steps
        while self.clock.held and steps.next_due is not None and steps.next_due <= self.clock():
            steps.run()
            self._tell()
        self._arm()

    def _tell(self) -> None:
        venue = self.exchange.venue
        changes = venue.take_changes()
        events = [
            Told(event.channel, event.id, event.moment, event.order_id, wire.encoded(event.body))
            for event in venue.take_events()
        ]
        if self._storage is not None and (changes or events):
            self._storage.save(venue, changes, events, self._host())
        if changes.positions:
            self._delayed.record(changes.positions, self.clock())
        self.stream.connection_limit = venue.options.stream_limit
        if events:
            self.stream.publish([event for event in events if event.channel == TRADES])
            self.sources.publish(events)

    def account(self) -> Json:
        """The account as the wire tells it."""
        venue = self.exchange.venue
        return wire.account(
            venue.portfolio,
            margin=venue.options.buying_power_margin,
            opened_at=venue.opened_at,
            asof=previous_trading_day(venue.market.today(self.clock())),
            settings=venue.configuration,
        )

    def listed_positions(self, lag: float = 0) -> dict[str, Position]:
        """By symbol, as the wire lists them."""
        lag = max(lag, self.exchange.venue.options.position_lag)
        return self._delayed.at(self.clock(), lag)

    def orders_at(self, moment: int) -> dict[str, Json]:
        """What has changed since, as it was told before that; see `lag`."""
        return orders_at(self.sources.histories[TRADES], moment)

    def _host(self) -> Json:
        """What belongs to the state beside the venue."""
        return {"clock": self.clock.dump(), "prices_held": self.prices_held}

    def dump(self) -> Json:
        """All there is to know, for a later `load`."""
        events = [event for history in self.sources.histories.values() for event in history]
        return snapshot.dump(self.exchange.venue, self._host(), events)

    def load(self, stored: Json) -> None:
        """Go back to what was dumped. Raises ValueError for what is no dump."""
        events = snapshot.events(stored)
        self._restore(stored, events)
        if self._storage is not None:
            self._storage.clear()
            self._storage.save(
                self.exchange.venue,
                snapshot.everything(self.exchange.venue),
                events,
                self._host(),
            )
        self.settle()

    def reset(self, *, cash: Decimal = INITIAL_CASH) -> None:
        """All as at the first start: no orders, no spent ids, no options, faults or log."""
        self._install(Exchange(self.clock, self.seed, cash))
        self.prices_held = False
        self.faults.clear()
        self.faults.bad_day = None
        self.journal.clear()
        self._forget()
        self._store_everything()

    def _forget(self) -> None:
        self.sources.forget()
        if self._storage is not None:
            self._storage.clear()

    def travel(self, moment: int) -> None:
        """Move the clock; on the way forward all happens that would have happened, in order."""
        steps = self.exchange.steps
        if moment < self.clock():
            self.clock.set(moment)
            steps.restart()
        while (due := steps.next_moment()) is not None and due <= moment:
            self.clock.set(due)
            steps.run()
            steps.day.follow()
            self._tell()
        self.clock.set(moment)
        steps.day.follow()
        self.settle()

    def strike(self, fault: Fault) -> None:
        """Do at once what concerns all connections."""
        if fault.kind == "stream_close":
            self.stream.abort()
        elif fault.kind == "stream_gap":
            self.stream.shut(fault.seconds)
        elif fault.kind == "stream_freeze":
            self.stream.freeze(fault.seconds)
        elif fault.kind == "sse_close":
            self.sources.abort()
        elif fault.kind == "sse_error":
            self.sources.fail()
        elif self.doors is not None:
            self.doors.shut(fault.seconds)

    async def start(self) -> None:
        self._ticker = asyncio.create_task(self._tick())
        self._ticker.add_done_callback(_report)
        self._arm()

    def part(self) -> None:
        """Cut the streams; they would hold up the end."""
        self.stream.abort()
        self.sources.abort()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        self.part()
        if self._storage is not None:
            self._storage.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.exchange.venue.options.tick_seconds)
            if self.clock.held:
                continue  # time stands still, prices with it
            venue, steps = self.exchange.venue, self.exchange.steps  # new ones after a reset
            if not self.prices_held and venue.market.session(self.clock()) != "closed":
                steps.tick()
            if venue.market.mode == "hours":
                steps.day.follow()
            self.settle()

    def _arm(self) -> None:
        """Wake up for the next step of the exchange."""
        due = self.exchange.steps.next_due
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due is not None and self._ticker is not None and not self.clock.held:
            delay = max(due - self.clock(), 0) / SECOND
            self._alarm = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self.exchange.steps.run()
        self.settle()


def _report(ticker: asyncio.Task[None]) -> None:
    """A market that stands still must not do so in silence."""
    if not ticker.cancelled() and (problem := ticker.exception()):
        _log.critical("the simulated market stopped moving", exc_info=problem)
