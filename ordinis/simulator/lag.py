"""Positions as a lagging broker lists them: as they were a while ago.

At Alpaca orders and positions can disagree for seconds after a fill. Only the listing lags; what
may be sold is judged by the true position.
"""

from collections import deque
from collections.abc import Iterable

from ordinis.simulator.moments import SECOND
from ordinis.simulator.portfolio import Portfolio, Position


class DelayedPositions:
    """Follows a portfolio at a distance."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._shown = {held.symbol: held for held in portfolio}
        self._waiting: deque[tuple[int, str, Position | None]] = deque()

    def record(self, portfolio: Portfolio, symbols: Iterable[str], moment: int) -> None:
        """These symbols changed just now."""
        self._waiting.extend((moment, symbol, portfolio.get(symbol)) for symbol in symbols)

    def at(self, moment: int, lag: float) -> dict[str, Position]:
        """By symbol, as it was `lag` seconds before the moment."""
        seen_until = moment - int(lag * SECOND)
        while self._waiting and self._waiting[0][0] <= seen_until:
            _, symbol, held = self._waiting.popleft()
            if held is None:
                self._shown.pop(symbol, None)
            else:
                self._shown[symbol] = held
        return self._shown
