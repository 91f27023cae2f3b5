"""The exchange's time: New York's clocks, holidays, early closes, and two calendars of which the
closed side holds."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.port import CalendarDay, Listing
from ordinis.simulator import holidays
from risk import exchange, jobs
from risk.exchange import CalendarUnknown, Session, exchange_day, next_open, session_at
from risk.models import ExchangeDay
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    exchange.forget()
    yield
    exchange.forget()


def et(text: str) -> datetime:
    """A moment by New York's clocks."""
    return datetime.fromisoformat(text).replace(tzinfo=exchange.NEW_YORK)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def told(day: str, opens: str = "09:30", closes: str = "16:00") -> None:
    """The broker's calendar has this day."""
    ExchangeDay.objects.create(
        day=date.fromisoformat(day),
        opens=time.fromisoformat(opens),
        closes=time.fromisoformat(closes),
    )
    exchange.forget()


# --- the shipped calendar --------------------------------------------------------------------


def test_the_shipped_calendar_follows_from_the_exchanges_rules() -> None:
    day = date(2025, 1, 1)
    while day <= date(2028, 12, 31):
        hours = exchange.hours_of(day)
        assert (hours is not None) is holidays.is_trading_day(day), day
        if hours is not None:
            assert (hours.opens, hours.closes) == (time(9, 30), holidays.close_of(day)), day
        day += timedelta(days=1)


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        ("2026-11-20 03:59:59", "closed"),
        ("2026-11-20 04:00:00", "extended"),
        ("2026-11-20 09:29:59", "extended"),
        ("2026-11-20 09:30:00", "regular"),
        ("2026-11-20 15:59:59", "regular"),
        ("2026-11-20 16:00:00", "extended"),
        ("2026-11-20 19:59:59", "extended"),
        ("2026-11-20 20:00:00", "closed"),
        ("2026-11-21 12:00:00", "closed"),  # a Saturday
        ("2026-11-26 12:00:00", "closed"),  # Thanksgiving
        ("2026-11-27 12:59:59", "regular"),  # the day after: until 13:00
        ("2026-11-27 13:00:00", "extended"),
        ("2026-11-27 16:59:59", "extended"),
        ("2026-11-27 17:00:00", "closed"),
    ],
)
def test_each_session_begins_and_ends_to_the_second(moment: str, kind: str) -> None:
    assert session_at(et(moment)).kind == kind


def test_a_session_names_its_day_and_hours_in_utc() -> None:
    assert session_at(et("2026-11-27 10:00")) == Session(
        kind="regular",
        day=date(2026, 11, 27),
        opens=utc("2026-11-27 14:30"),
        closes=utc("2026-11-27 18:00"),
    )
    assert session_at(et("2026-11-26 10:00")) == Session(kind="closed", day=date(2026, 11, 26))


def test_the_open_moves_by_an_hour_in_utc_when_new_yorks_clocks_do() -> None:
    # Clocks go forward on Sunday 2026-03-08, and back on Sunday 2026-11-01.
    assert next_open(et("2026-03-06 00:00")) == utc("2026-03-06 14:30")
    assert next_open(et("2026-03-07 00:00")) == utc("2026-03-09 13:30")
    assert next_open(et("2026-10-30 00:00")) == utc("2026-10-30 13:30")
    assert next_open(et("2026-10-31 00:00")) == utc("2026-11-02 14:30")


def test_the_exchanges_day_begins_at_midnight_in_new_york() -> None:
    assert exchange_day(utc("2026-11-21 04:59:59")) == date(2026, 11, 20)
    assert exchange_day(utc("2026-11-21 05:00:00")) == date(2026, 11, 21)
    assert exchange_day(utc("2026-07-21 03:59:59")) == date(2026, 7, 20)
    assert exchange_day(utc("2026-07-21 04:00:00")) == date(2026, 7, 21)


def test_the_next_open_is_strictly_later() -> None:
    opens = utc("2026-11-20 14:30")

    assert next_open(opens - timedelta(microseconds=1)) == opens
    assert next_open(opens) == utc("2026-11-23 14:30")


def test_the_next_open_skips_weekends_holidays_and_the_turn_of_the_year() -> None:
    assert next_open(et("2026-11-25 16:00")) == et("2026-11-27 09:30")
    assert next_open(et("2026-12-31 10:00")) == et("2027-01-04 09:30")


def test_days_that_no_calendar_knows_are_closed() -> None:
    assert session_at(et("2029-01-02 12:00")) == Session(kind="closed", day=date(2029, 1, 2))
    assert session_at(et("2024-12-31 12:00")).kind == "closed"


def test_no_open_is_invented_beyond_the_last_known_day() -> None:
    with pytest.raises(CalendarUnknown, match="calendar"):
        next_open(et("2028-12-29 09:30"))


# --- the broker's calendar beside it -----------------------------------------------------------


def test_the_brokers_calendar_speaks_where_the_shipped_one_has_ended() -> None:
    told("2029-01-02", closes="13:00")

    assert next_open(et("2028-12-29 10:00")) == et("2029-01-02 09:30")
    assert session_at(et("2029-01-02 13:00")).kind == "extended"
    assert session_at(et("2029-01-03 12:00")).kind == "closed"


def test_a_day_that_the_broker_does_not_trade_is_closed() -> None:
    told("2026-11-19")
    told("2026-11-23")

    assert session_at(et("2026-11-20 12:00")).kind == "closed"
    assert session_at(et("2026-11-24 12:00")).kind == "regular"  # beyond the broker's span


def test_a_holiday_stays_one_whatever_the_broker_says() -> None:
    told("2026-11-26")

    assert session_at(et("2026-11-26 12:00")).kind == "closed"


@pytest.mark.parametrize(
    ("opens", "closes", "shown"),
    [
        ("09:30", "13:00", ("14:30", "18:00")),  # the broker closes early
        ("11:00", "16:00", ("16:00", "21:00")),  # the broker opens late
        ("08:00", "18:00", ("14:30", "21:00")),  # the broker's hours are longer
    ],
)
def test_of_differing_hours_the_later_open_and_the_earlier_close_hold(
    opens: str, closes: str, shown: tuple[str, str]
) -> None:
    told("2026-11-20", opens, closes)

    session = session_at(et("2026-11-20 12:00"))

    assert session.opens is not None and session.closes is not None  # noqa: PT018
    assert (f"{session.opens:%H:%M}", f"{session.closes:%H:%M}") == shown


def test_hours_that_have_nothing_in_common_are_no_session() -> None:
    told("2026-11-27", "13:00", "16:00")  # the shipped one closes at 13:00

    assert session_at(et("2026-11-27 14:00")).kind == "closed"


def test_the_calendar_is_read_once_for_many_orders() -> None:
    with CaptureQueriesContext(connection) as queries:
        for _ in range(50):
            session_at(et("2026-11-20 12:00"))
            next_open(et("2026-11-20 12:00"))

    assert len(queries) == 1


# --- the job ----------------------------------------------------------------------------------


TODAY = date(2026, 11, 20)


def listing(**changes: Any) -> Listing[CalendarDay]:
    """What the broker should answer, as the exchange's rules have it."""
    days = holidays.trading_days(TODAY - timedelta(days=30), TODAY + timedelta(days=400))
    items = tuple(
        CalendarDay(day=day, open="09:30", close=f"{holidays.close_of(day):%H:%M}") for day in days
    )
    return Listing(**{"items": items, "complete": True, **changes})


def replaced(day: str, open: str = "09:30", close: str = "16:00") -> Listing[CalendarDay]:
    """The same with other hours of one day."""
    other = CalendarDay(day=date.fromisoformat(day), open=open, close=close)
    return listing(
        items=tuple(other if each.day == other.day else each for each in listing().items)
    )


@pytest.mark.django_db(transaction=True)
def test_the_brokers_calendar_is_taken_over(sim: SimulatorServer, account: BrokerAccount) -> None:
    jobs.calendar()

    rows = {row.day: row for row in ExchangeDay.objects.all()}
    today = exchange_day(datetime.now(UTC))
    assert min(rows) <= today - timedelta(days=26)
    assert max(rows) >= today + timedelta(days=390)
    assert all(holidays.is_trading_day(day) for day in rows)
    assert not Alert.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_calendar_is_not_asked_for_again_the_same_day(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    jobs.calendar()
    jobs.calendar()

    assert len(sim.get("/sim/log?path=/v2/calendar")) == 1


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_does_not_answer_takes_nothing_away(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    told("2026-11-20")
    ExchangeDay.objects.update(as_of=utc("2026-11-01 00:00"))
    sim.post("/sim/faults", {"kind": "status_before", "path": "/v2/calendar", "count": 20})

    jobs.calendar()

    assert [row.day for row in ExchangeDay.objects.all()] == [date(2026, 11, 20)]
    standing = Alert.objects.filter(code="calendar_not_read", ended_at=None)
    assert standing.exists()

    sim.delete("/sim/faults")
    jobs.calendar()

    assert not standing.exists()
    assert ExchangeDay.objects.count() > 250


@pytest.mark.parametrize(
    "told_by_broker",
    [
        listing(complete=False, reason="one day could not be read"),
        listing(items=()),
        listing(items=listing().items[:20]),  # ends before long
        listing(items=listing().items[:40] + listing().items[60:]),  # a hole
        listing(items=listing().items[20:]),  # begins too late
        listing(items=(*listing().items, listing().items[0])),  # a day twice
        replaced("2026-11-20", open="nine"),
        replaced("2026-11-20", open="16:00", close="09:30"),
        replaced("2026-11-20", close="23:00"),
        listing(
            items=(
                *listing().items,
                CalendarDay(day=date(2026, 11, 21), open="09:30", close="16:00"),  # a Saturday
            )
        ),
    ],
)
def test_an_implausible_calendar_is_not_believed(told_by_broker: Listing[CalendarDay]) -> None:
    with pytest.raises(jobs.ImplausibleCalendar):
        jobs.plausible(told_by_broker, TODAY)


def test_a_plausible_calendar_is_kept_and_a_day_that_is_gone_from_it_goes() -> None:
    told("2026-11-26")  # was told as a trading day before
    told("2026-09-01")  # older than the span that was asked for
    told("2027-12-31")  # later than it

    days = jobs.plausible(listing(), TODAY)
    jobs.keep(days, as_of=utc("2026-11-20 12:00"), start=TODAY - timedelta(days=30))

    kept = set(ExchangeDay.objects.values_list("day", flat=True))
    assert date(2026, 11, 26) not in kept
    assert {date(2026, 9, 1), date(2027, 12, 31)} <= kept
    assert ExchangeDay.objects.get(day=date(2026, 11, 27)).closes == time(13, 0)


def test_a_calendar_that_was_read_holds_at_once() -> None:
    assert session_at(et("2026-11-20 14:00")).kind == "regular"

    days = jobs.plausible(replaced("2026-11-20", close="13:00"), TODAY)
    jobs.keep(days, as_of=utc("2026-11-20 12:00"), start=TODAY - timedelta(days=30))

    assert session_at(et("2026-11-20 14:00")).kind == "extended"
