"""The exchange in real time: stores each change, then tells of it, and keeps the clock going.

One event loop, one thread, so that every request and every step is whole before the next begins.
"""

import asyncio
import logging
from decimal import Decimal
from pathlib import Path

from ordinis.simulator.exchange import Exchange
from ordinis.simulator.faults import Faults
from ordinis.simulator.journal import Journal
from ordinis.simulator.lag import DelayedPositions
from ordinis.simulator.moments import SECOND, rising_clock
from ordinis.simulator.portfolio import Position
from ordinis.simulator.storage import Storage
from ordinis.simulator.stream import Stream
from ordinis.simulator.venue import INITIAL_CASH

_log = logging.getLogger(__name__)


class Runtime:
    """Everything that runs behind one port."""

    def __init__(self, *, seed: int, state_path: Path | None) -> None:
        self.seed = seed
        self.clock = rising_clock()
        self.exchange = Exchange(self.clock, seed)
        self.faults = Faults()
        self.stream = Stream(self.faults)
        self.journal = Journal()
        self.prices_held = False
        self._storage = Storage(state_path) if state_path else None
        self._alarm: asyncio.TimerHandle | None = None
        self._ticker: asyncio.Task[None] | None = None
        if self._storage is not None and self._storage.load(self.exchange.venue):
            self.exchange.steps.resume()
        self._delayed = DelayedPositions(self.exchange.venue.portfolio)
        self._store_everything()

    def _store_everything(self) -> None:
        changes = self.exchange.venue.changes
        changes.account = changes.prices = changes.settings = True
        self.settle()

    def settle(self) -> None:
        """Store what changed, then send the events. Call before any answer goes out."""
        venue = self.exchange.venue
        changes, events = venue.take_changes(), venue.take_events()
        if self._storage is not None and changes:
            self._storage.save(venue, changes)
        if changes.positions:
            self._delayed.record(venue.portfolio, changes.positions, self.clock())
        self.stream.connection_limit = venue.options.stream_limit
        if events:
            self.stream.publish(events)
        self._arm()

    def listed_positions(self) -> dict[str, Position]:
        """By symbol, as the wire lists them."""
        return self._delayed.at(self.clock(), self.exchange.venue.options.position_lag)

    def reset(self, *, cash: Decimal = INITIAL_CASH) -> None:
        """All as at the first start: no orders, no spent ids, no options, faults or log."""
        self.exchange = Exchange(self.clock, self.seed, cash)
        self._delayed = DelayedPositions(self.exchange.venue.portfolio)
        self.prices_held = False
        self.faults.clear()
        self.journal.clear()
        if self._storage is not None:
            self._storage.clear()
        self._store_everything()

    async def start(self) -> None:
        self._ticker = asyncio.create_task(self._tick())
        self._ticker.add_done_callback(_report)
        self._arm()

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        self.stream.abort()
        if self._storage is not None:
            self._storage.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self.exchange.venue.options.tick_seconds)
            venue, steps = self.exchange.venue, self.exchange.steps  # new ones after a reset
            if not self.prices_held and venue.market.session(self.clock()) != "closed":
                steps.tick()
            elif venue.market.mode == "hours":
                steps.follow_market()
            self.settle()

    def _arm(self) -> None:
        """Wake up for the next step of the exchange."""
        due = self.exchange.steps.next_due
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due is not None and self._ticker is not None:
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
