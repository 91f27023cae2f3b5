"""When the market is open: always by default, so that a demo always trades.

Knows the New York exchange's weekdays, holidays and hours; early closes are left out.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from ordinis.simulator.moments import SECOND

NEW_YORK = ZoneInfo("America/New_York")
MODES = ("always_open", "hours", "closed")
_OPEN, _CLOSE = time(9, 30), time(16, 0)
_EARLY, _LATE = time(4, 0), time(20, 0)


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _good_friday(year: int) -> date:
    """Two days before Easter (the anonymous Gregorian algorithm)."""
    century, rest = divmod(year, 100)
    golden = year % 19
    epact = (
        19 * golden + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15
    ) % 30
    weekday = (32 + 2 * (century % 4) + 2 * (rest // 4) - epact - rest % 4) % 7
    shift = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * shift + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


@cache
def _holidays(year: int) -> frozenset[date]:
    last_of_may = date(year, 5, 31)
    days = {
        _nth(year, 1, 0, 3),
        _nth(year, 2, 0, 3),
        _good_friday(year),
        last_of_may - timedelta(days=last_of_may.weekday()),
        _nth(year, 9, 0, 1),
        _nth(year, 11, 3, 4),
    }
    for month, day in ((1, 1), (6, 19), (7, 4), (12, 25)):
        fixed = date(year, month, day)
        if fixed.weekday() == 6:
            fixed += timedelta(days=1)
        elif fixed.weekday() == 5 and month != 1:
            fixed -= timedelta(days=1)
        days.add(fixed)
    return frozenset(days)


def is_trading_day(day: date) -> bool:
    return day.weekday() < 5 and day not in _holidays(day.year)


def trading_days(start: date, end: date) -> Iterator[date]:
    """Every day with a session, both ends included."""
    while start <= end:
        if is_trading_day(start):
            yield start
        start += timedelta(days=1)


def next_trading_day(day: date) -> date:
    """The day after, on which a trade settles."""
    day += timedelta(days=1)
    while not is_trading_day(day):
        day += timedelta(days=1)
    return day


def _local(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // SECOND, UTC).astimezone(NEW_YORK)


def _next(moment: int, at: time) -> datetime:
    """The first `at` of a trading day after the moment."""
    now = _local(moment)
    day = now.date()
    while True:
        candidate = datetime.combine(day, at, NEW_YORK)
        if candidate > now and is_trading_day(day):
            return candidate
        day += timedelta(days=1)


class Market:
    """The venue's sessions in one of the MODES."""

    def __init__(self) -> None:
        self.mode = "always_open"

    def session(self, moment: int) -> str:
        """`open`, `extended` (before and after hours) or `closed`."""
        if self.mode != "hours":
            return "open" if self.mode == "always_open" else "closed"
        now = _local(moment)
        if not is_trading_day(now.date()) or not _EARLY <= now.time() < _LATE:
            return "closed"
        return "open" if _OPEN <= now.time() < _CLOSE else "extended"

    def trades(self, moment: int, *, extended_hours: bool) -> bool:
        """Whether an order can be worked at this moment."""
        session = self.session(moment)
        return session == "open" or (session == "extended" and extended_hours)

    def next_open(self, moment: int) -> datetime:
        return _next(moment, _OPEN)

    def next_close(self, moment: int) -> datetime:
        return _next(moment, _CLOSE)

    def today(self, moment: int) -> date:
        return _local(moment).date()

    def expiry(self, moment: int, *, time_in_force: str, extended_hours: bool) -> int:
        """When an order sent now comes to its end by itself: the day's close, or 90 days."""
        if time_in_force == "gtc":
            moment += 90 * 86_400 * SECOND
        end = _next(moment, _LATE if extended_hours and time_in_force == "day" else _CLOSE)
        return int(end.timestamp()) * SECOND
