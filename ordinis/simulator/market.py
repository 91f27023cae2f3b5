"""When the market is open: always by default, so that a demo always trades.

Tells sessions and the moments between them; what they do to orders is in `daily`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from ordinis.simulator import holidays
from ordinis.simulator.holidays import NEW_YORK, NIGHT, OPEN, close_of, is_trading_day, late_of
from ordinis.simulator.moments import SECOND

MODES = ("always_open", "hours", "closed")
_GTC_DAYS = 90
# When orders for an auction are refused: from so long before it until the evening.
_OPENING_CUT, _CLOSING_CUT = timedelta(minutes=2), timedelta(minutes=10)
_AUCTIONS_AGAIN = time(19, 0)


@dataclass(frozen=True, slots=True)
class Session:
    """`open`, `extended` (before and after hours), `overnight` or `closed`, from start to end."""

    name: str
    start: int
    end: int


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND


def local(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // SECOND, UTC).astimezone(NEW_YORK)


def _next(moment: int, clock: Callable[[date], time]) -> datetime:
    """The first time of that kind on a trading day after the moment."""
    now = local(moment)
    day = now.date()
    while True:
        candidate = holidays.at(day, clock(day))
        if candidate > now and is_trading_day(day):
            return candidate
        day += timedelta(days=1)


def _boundaries(day: date) -> list[tuple[datetime, str]]:
    """The sessions of one calendar day, each with its start."""
    tomorrow = day + timedelta(days=1)
    evening = "overnight" if is_trading_day(tomorrow) else "closed"
    parts = [(holidays.at(day, NIGHT), evening)]
    if not is_trading_day(day):
        return [(holidays.at(day, time(0)), "closed"), *parts]
    return [
        (holidays.at(day, time(0)), "overnight"),
        (holidays.at(day, holidays.EARLY), "extended"),
        (holidays.at(day, OPEN), "open"),
        (holidays.at(day, close_of(day)), "extended"),
        (holidays.at(day, late_of(day)), "closed"),
        *parts,
    ]


class Market:
    """The venue's sessions in one of the MODES."""

    def __init__(self) -> None:
        self.mode = "always_open"
        self.overnight = True  # whether orders for extended hours are worked at night too
        self._current = Session("closed", 0, 0)

    def session(self, moment: int) -> str:
        if self.mode != "hours":
            return "open" if self.mode == "always_open" else "closed"
        return self.hours(moment).name

    def hours(self, moment: int) -> Session:
        """The session by New York's clock, whatever the mode."""
        if not self._current.start <= moment < self._current.end:
            self._current = self._find(moment)
        return self._current

    def _find(self, moment: int) -> Session:
        day = local(moment).date()
        parts = [(_nanoseconds(start), name) for start, name in _boundaries(day)]
        ends = [start for start, _ in parts[1:]]
        ends.append(_nanoseconds(holidays.at(day + timedelta(days=1), time(0))))
        for (start, name), end in zip(parts, ends, strict=True):
            if start <= moment < end:
                return Session(name, start, end)
        raise ValueError(f"no session holds {moment}")

    def trades(self, moment: int, *, extended_hours: bool) -> bool:
        """Whether an order can be worked at this moment."""
        session = self.session(moment)
        if session == "overnight":
            return extended_hours and self.overnight
        return session == "open" or (session == "extended" and extended_hours)

    def takes_auction_order(self, moment: int, time_in_force: str) -> bool:
        """Whether an `opg` or `cls` order is still, or again, in time for its auction."""
        if self.mode != "hours":
            return True
        now = local(moment)
        if not is_trading_day(now.date()):
            return True
        if time_in_force == "opg":
            last = holidays.at(now.date(), OPEN) - _OPENING_CUT
        else:
            last = holidays.at(now.date(), close_of(now.date())) - _CLOSING_CUT
        return not last <= now < holidays.at(now.date(), _AUCTIONS_AGAIN)

    def next_open(self, moment: int) -> datetime:
        return _next(moment, lambda _day: OPEN)

    def next_close(self, moment: int) -> datetime:
        return _next(moment, close_of)

    def today(self, moment: int) -> date:
        return local(moment).date()

    def expiry(self, moment: int, *, time_in_force: str, extended_hours: bool) -> int:
        """When an order sent now comes to its end by itself: the day's close, or 90 days."""
        if time_in_force == "gtc":
            moment += _GTC_DAYS * 86_400 * SECOND
        late = extended_hours and time_in_force == "day"
        return _nanoseconds(_next(moment, late_of if late else close_of))
