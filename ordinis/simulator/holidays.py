"""The New York exchange's trading days: weekends, holidays, early closes, settlement.

Computed from the exchange's rules, which give its published calendar for 2025 to 2027; the days of
mourning that no rule foresees are listed. Knows days and hours only, nothing of orders.
"""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
EARLY, OPEN = time(4, 0), time(9, 30)
NIGHT = time(20, 0)  # when overnight trading begins, whatever the day was
_CLOSE, _LATE = time(16, 0), time(20, 0)
_SHORT_CLOSE, _SHORT_LATE = time(13, 0), time(17, 0)
_MOURNING = frozenset({date(2018, 12, 5), date(2025, 1, 9)})


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
    return frozenset(days) | _MOURNING


def is_trading_day(day: date) -> bool:
    return day.weekday() < 5 and day not in _holidays(day.year)


@cache
def is_short(day: date) -> bool:
    """Whether trading ends at 13:00: around Independence Day, Thanksgiving and Christmas."""
    shortened = {
        date(day.year, 7, 3),
        _nth(day.year, 11, 3, 4) + timedelta(days=1),
        date(day.year, 12, 24),
    }
    return day in shortened and is_trading_day(day)


def close_of(day: date) -> time:
    return _SHORT_CLOSE if is_short(day) else _CLOSE


def late_of(day: date) -> time:
    """The end of the hours after the close."""
    return _SHORT_LATE if is_short(day) else _LATE


def at(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, NEW_YORK)


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


def previous_trading_day(day: date) -> date:
    day -= timedelta(days=1)
    while not is_trading_day(day):
        day -= timedelta(days=1)
    return day
