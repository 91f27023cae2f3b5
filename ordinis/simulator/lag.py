"""Lists as a lagging broker tells them: as they were a while ago.

At Alpaca orders and positions can disagree for seconds after a fill. Only the listing lags; what
may be sold is judged by the true position.
"""

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from ordinis.simulator.history import History
from ordinis.simulator.moments import SECOND
from ordinis.simulator.portfolio import Portfolio, Position

_LONGEST = 120 * SECOND  # no list can lag by more


class DelayedPositions:
    """Follows a portfolio at a distance."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._portfolio = portfolio
        self._settled = {held.symbol: held for held in portfolio}
        self._recent: deque[tuple[int, str, Position | None]] = deque()

    def record(self, symbols: Iterable[str], moment: int) -> None:
        """These symbols changed just now."""
        self._recent.extend((moment, symbol, self._portfolio.get(symbol)) for symbol in symbols)
        while self._recent and self._recent[0][0] <= moment - _LONGEST:
            self._apply(self._settled, self._recent.popleft())

    def at(self, moment: int, lag: float) -> dict[str, Position]:
        """By symbol, as it was `lag` seconds before the moment."""
        if not lag:
            return {held.symbol: held for held in self._portfolio}
        shown = dict(self._settled)
        for change in self._recent:
            if change[0] <= moment - int(lag * SECOND):
                self._apply(shown, change)
        return shown

    def _apply(self, shown: dict[str, Position], change: tuple[int, str, Position | None]) -> None:
        _, symbol, held = change
        if held is None:
            shown.pop(symbol, None)
        else:
            shown[symbol] = held


def orders_at(history: History, moment: int) -> dict[str, dict[str, Any]]:
    """Every order that has changed since the moment, as the stream told it last before that.

    An order that did not exist yet is an empty dict. What is not named has not changed.
    """
    changed = {event.order_id for event in history if event.moment > moment}
    shown: dict[str, dict[str, Any]] = {order_id: {} for order_id in changed}
    for event in history:
        if event.moment <= moment and event.order_id in changed:
            order = json.loads(event.body)["order"]
            del order["cancel_requested_at"]
            shown[event.order_id] = {**order, "subtag": None, "source": None}
    return shown
