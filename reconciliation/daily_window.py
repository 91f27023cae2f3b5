"""From when to when a day of the exchange is reported. Pure but for the exchange's calendar.

A day runs from shortly after the close before it to shortly after its own: so nothing that happens
in the evening, at night or on a weekend is in no report, and none changes once it is made.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from risk.exchange import NEW_YORK, CalendarUnknown, exchange_day, hours_of

_ENDS_AFTER_CLOSE: Final = timedelta(minutes=10)
# The rest until then is for what was still being written when the day ended.
_DUE_AFTER_CLOSE: Final = timedelta(minutes=15)
# Trading days of which a report is still made when everything was down.
_MADE_UP_FOR: Final = 5
# The exchange has never been shut for so long.
_LONGEST_GAP: Final = 15
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A trading day: its regular hours, and the span that its report covers (`ends` excluded)."""

    day: date
    opens: datetime
    closes: datetime
    starts: datetime
    ends: datetime

    @property
    def due(self) -> datetime:
        """From when on its report can be made for good."""
        return self.closes + _DUE_AFTER_CLOSE


def day_on(day: date) -> Day | None:
    """The trading day of a date; None when the exchange does not trade on it."""
    hours = hours_of(day)
    if hours is None:
        return None
    opens = datetime.combine(day, hours.opens, NEW_YORK)
    closes = datetime.combine(day, hours.closes, NEW_YORK)
    before = trading_days_before(day, 1)
    starts = datetime.combine(day, datetime.min.time(), NEW_YORK)
    if before and (last := hours_of(before[0])):
        starts = datetime.combine(before[0], last.closes, NEW_YORK) + _ENDS_AFTER_CLOSE
    return Day(day=day, opens=opens, closes=closes, starts=starts, ends=closes + _ENDS_AFTER_CLOSE)


def day_at(moment: datetime) -> Day:
    """The trading day whose report a moment belongs to. Raises CalendarUnknown."""
    date_ = exchange_day(moment)
    for ahead in range(_LONGEST_GAP):
        found = day_on(date_ + ahead * _DAY)
        if found is not None and moment < found.ends:
            return found
    raise CalendarUnknown(
        f"No trading day after {date_} is known: look at the job `calendar` on Health."
    )


def due_days(now: datetime) -> list[Day]:
    """The last trading days whose reports can be made for good, oldest first."""
    today = exchange_day(now)
    dates = [*trading_days_before(today, _MADE_UP_FOR), today]
    found = [day for day in map(day_on, dates) if day is not None and day.due <= now]
    return found[-_MADE_UP_FOR:]


def trading_days_before(day: date, count: int) -> list[date]:
    """So many trading days before a date, oldest first; fewer where no more are known."""
    found: list[date] = []
    candidate = day
    for _ in range(count * 2 + _LONGEST_GAP):
        candidate -= _DAY
        if hours_of(candidate) is not None:
            found.append(candidate)
        if len(found) == count:
            break
    return found[::-1]
