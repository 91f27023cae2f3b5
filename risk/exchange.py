"""The exchange's time: its days, holidays, early closes and sessions (New York).

Two tables: the broker's calendar, kept in `ExchangeDay` by a job, and one that is shipped. Where
they differ the closed side holds; a day that neither knows is closed. Never asks the broker: it is
on the way of every order.
"""

import csv
import threading
import time as clock
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo

from risk.models import ExchangeDay

NEW_YORK: Final = ZoneInfo("America/New_York")
REGULAR: Final = "regular"
EXTENDED: Final = "extended"
CLOSED: Final = "closed"

_OPENS, _CLOSES = time(9, 30), time(16, 0)
_EARLY, _LATE = time(4, 0), time(20, 0)
# The hours after the close are four: on a day that ends at 13:00 they end at 17:00.
_AFTER_THE_CLOSE = timedelta(hours=4)
_SHIPPED = Path(__file__).with_name("exchange_days.csv")
# The broker's table changes once a day at most; so long a process goes by what it has read.
_KEPT_SECONDS = 30.0
_DAY = timedelta(days=1)


class CalendarUnknown(LookupError):
    """No coming trading day is known: both calendars have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What the exchange does at a moment. `day` is its date; `opens` and `closes` (UTC) are that
    day's regular hours, None where it has none."""

    kind: Literal["regular", "extended", "closed"]
    day: date
    opens: datetime | None = None
    closes: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hours:
    """Regular hours of one day, by New York's clocks."""

    opens: time
    closes: time


@dataclass(frozen=True, slots=True)
class _Table:
    """The broker's calendar: it speaks of every day of its span; one it lacks is closed."""

    days: dict[date, Hours]
    span: tuple[date, date] | None
    read: float

    def knows(self, day: date) -> bool:
        return self.span is not None and self.span[0] <= day <= self.span[1]


_guard = threading.Lock()
_kept: _Table | None = None


def forget() -> None:
    """The broker's table is read anew at the next question."""
    global _kept
    _kept = None


def exchange_day(moment: datetime) -> date:
    """The exchange's date at a moment."""
    return moment.astimezone(NEW_YORK).date()


def is_trading_day(day: date) -> bool:
    return hours_of(day) is not None


def hours_of(day: date) -> Hours | None:
    """The regular hours of a day; None when the exchange does not trade on it, or nobody knows."""
    table = _broker_table()
    sides = [
        *([table.days.get(day)] if table.knows(day) else []),
        *([_shipped_hours(day)] if day.year in _shipped_years() else []),
    ]
    if not sides or None in sides:
        return None
    known = [side for side in sides if side is not None]
    hours = Hours(max(side.opens for side in known), min(side.closes for side in known))
    return hours if hours.opens < hours.closes else None


def session_at(moment: datetime) -> Session:
    """The session at a moment. The end of one is the beginning of the next: at 16:00:00 the
    regular one is over."""
    day = exchange_day(moment)
    hours = hours_of(day)
    if hours is None:
        return Session(kind=CLOSED, day=day)
    opens, closes = _at(day, hours.opens), _at(day, hours.closes)
    kind: Literal["regular", "extended", "closed"] = CLOSED
    if opens <= moment < closes:
        kind = REGULAR
    elif _at(day, _EARLY) <= moment < min(closes + _AFTER_THE_CLOSE, _at(day, _LATE)):
        kind = EXTENDED
    return Session(kind=kind, day=day, opens=opens, closes=closes)


def next_open(moment: datetime) -> datetime:
    """When regular trading next begins, strictly after a moment (UTC).

    Raises CalendarUnknown when neither calendar reaches that far.
    """
    day = exchange_day(moment)
    last = max([*_broker_table().days, date(max(_shipped_years()), 12, 31)])
    while day <= last:
        hours = hours_of(day)
        if hours is not None and (opens := _at(day, hours.opens)) > moment:
            return opens
        day += _DAY
    raise CalendarUnknown(
        f"No trading day after {last} is known: the broker's calendar was not read for long. "
        "Look at the job `calendar` on Health."
    )


def _at(day: date, by_the_clock: time) -> datetime:
    return datetime.combine(day, by_the_clock, NEW_YORK).astimezone(UTC)


def _broker_table() -> _Table:
    global _kept
    table = _kept
    if table is not None and clock.monotonic() - table.read < _KEPT_SECONDS:
        return table
    with _guard:  # one reader for all threads that find it old
        table = _kept
        if table is None or clock.monotonic() - table.read >= _KEPT_SECONDS:
            rows = ExchangeDay.objects.order_by().values_list("day", "opens", "closes")
            days = {day: Hours(opens, closes) for day, opens, closes in rows}
            span = (min(days), max(days)) if days else None
            table = _kept = _Table(days, span, clock.monotonic())
    return table


@cache
def _shipped() -> dict[date, Hours | None]:
    """The days that are not as others: holidays (None) and early closes."""
    with _SHIPPED.open(encoding="utf-8", newline="") as file:
        return {
            date.fromisoformat(row["day"]): (
                Hours(_OPENS, time.fromisoformat(row["closes"])) if row["closes"] else None
            )
            for row in csv.DictReader(file)
        }


@cache
def _shipped_years() -> range:
    years = [day.year for day in _shipped()]
    return range(min(years), max(years) + 1)


def _shipped_hours(day: date) -> Hours | None:
    if day.weekday() >= 5:
        return None
    return _shipped().get(day, Hours(_OPENS, _CLOSES))
