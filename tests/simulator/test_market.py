"""Market hours: New York's sessions, and what they do to orders."""

from collections.abc import Callable
from datetime import date, timedelta

import pytest

from ordinis.simulator import holidays, moments
from ordinis.simulator.exchange import Exchange
from ordinis.simulator.market import Market
from ordinis.simulator.order import Order
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.request import parse_order


class WallClock:
    """Shows what it is set to."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = moments.parse(text)

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-07-24T13:29:59Z", "extended"),
        ("2026-07-24T13:30:00Z", "open"),
        ("2026-07-24T19:59:59Z", "open"),
        ("2026-07-24T20:00:00Z", "extended"),
        ("2026-07-25T00:00:00Z", "closed"),
        ("2026-07-25T15:00:00Z", "closed"),  # a Saturday
        ("2026-07-03T15:00:00Z", "closed"),  # Independence Day, observed
        ("2026-11-26T16:00:00Z", "closed"),  # Thanksgiving
        ("2026-12-24T14:29:59Z", "extended"),  # winter time
        ("2026-12-24T14:30:00Z", "open"),
    ],
)
def test_sessions_follow_new_york(moment: str, session: str) -> None:
    market = Market()
    market.mode = "hours"

    assert market.session(moments.parse(moment)) == session


def _exchange(start: str) -> tuple[Exchange, WallClock, Callable[..., Order]]:
    clock = WallClock(start)
    exchange = Exchange(clock, seed=1)
    exchange.venue.market.mode = "hours"

    def send(**fields: object) -> Order:
        body = {
            "symbol": "TSLA",
            "qty": "1",
            "side": "buy",
            "type": "limit",
            "limit_price": "100",
            "time_in_force": "day",
            **fields,
        }
        return exchange.submit(parse_order(body, exchange.venue.listing))

    return exchange, clock, send


def test_a_day_order_ends_with_its_day_and_a_gtc_order_does_not() -> None:
    exchange, clock, send = _exchange("2026-07-24T19:00:00Z")
    day, gtc = send(), send(time_in_force="gtc")
    clock.set("2026-07-24T19:01:00Z")
    exchange.steps.run()
    assert {day.status, gtc.status} == {"new"}

    clock.set("2026-07-24T20:00:00Z")
    exchange.steps.day.follow()

    assert (day.status, gtc.status) == ("expired", "new")


def test_an_order_sent_at_night_waits_for_the_morning() -> None:
    exchange, clock, send = _exchange("2026-07-24T02:00:00Z")
    order = send(limit_price="300")
    assert order.status == "accepted"

    clock.set("2026-07-24T13:30:00Z")
    exchange.steps.day.follow()
    assert order.status == "pending_new"
    clock.set("2026-07-24T13:31:00Z")
    exchange.steps.run()
    clock.set("2026-07-24T13:32:00Z")
    exchange.steps.run()

    assert order.status == "filled"


def test_before_the_open_only_extended_orders_are_worked() -> None:
    exchange, clock, send = _exchange("2026-07-24T12:00:00Z")
    plain, extended = send(limit_price="300"), send(limit_price="300", extended_hours=True)

    for minute in ("01", "02"):
        clock.set(f"2026-07-24T12:{minute}:00Z")
        exchange.steps.run()

    assert (plain.status, extended.status) == ("accepted", "filled")


def test_a_day_is_over_only_after_the_hours_an_order_asked_for() -> None:
    exchange, clock, send = _exchange("2026-07-24T19:00:00Z")
    extended = send(extended_hours=True)
    clock.set("2026-07-24T20:00:00Z")
    exchange.steps.run()
    exchange.steps.day.follow()
    assert extended.status == "new"

    clock.set("2026-07-25T00:00:00Z")
    exchange.steps.day.follow()

    assert extended.status == "expired"


@pytest.mark.parametrize(
    ("moment", "session"),
    [
        ("2026-11-27T17:59:59Z", "open"),  # the day after Thanksgiving: 12:59 in New York
        ("2026-11-27T18:00:00Z", "extended"),
        ("2026-11-27T22:00:00Z", "closed"),  # and the hours after the close end at 17:00
        ("2026-12-24T18:00:00Z", "extended"),
        ("2025-07-03T17:00:00Z", "extended"),
        ("2025-01-09T16:00:00Z", "closed"),  # a national day of mourning
        ("2026-07-27T00:00:00Z", "overnight"),  # Sunday, eight in the evening
        ("2026-07-27T07:59:59Z", "overnight"),
        ("2026-07-27T08:00:00Z", "extended"),
        ("2026-07-25T00:00:00Z", "closed"),  # Friday evening
    ],
)
def test_short_days_and_nights_have_their_hours(moment: str, session: str) -> None:
    market = Market()
    market.mode = "hours"

    assert market.session(moments.parse(moment)) == session


# As the exchange published them.
HOLIDAYS = {
    2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
}
SHORT_DAYS = {
    2025: "07-03 11-28 12-24",
    2026: "11-27 12-24",
    2027: "11-26",
}


@pytest.mark.parametrize("year", [2025, 2026, 2027])
def test_the_calendar_is_the_one_that_the_exchange_published(year: int) -> None:
    days = [date(year, 1, 1) + timedelta(days=number) for number in range(365)]
    closed = [day for day in days if day.weekday() < 5 and not holidays.is_trading_day(day)]

    assert " ".join(f"{day:%m-%d}" for day in closed) == HOLIDAYS[year]
    assert " ".join(f"{day:%m-%d}" for day in days if holidays.is_short(day)) == SHORT_DAYS[year]


def test_at_night_only_orders_for_extended_hours_are_worked_unless_turned_off() -> None:
    exchange, clock, send = _exchange("2026-07-27T02:00:00Z")
    first = send(extended_hours=True)
    exchange.venue.market.overnight = False
    clock.set("2026-07-27T02:01:00Z")

    assert (first.status, send().status, send(extended_hours=True).status) == (
        *("pending_new", "accepted", "accepted"),
    )


def _travel(exchange: Exchange, clock: WallClock, to: str) -> None:
    """As the clock of a running simulator moves: from one thing that happens to the next."""
    end = moments.parse(to)
    while (due := exchange.steps.next_moment()) is not None and due <= end:
        clock.now = due
        exchange.steps.run()
        exchange.steps.day.follow()
    clock.now = end
    exchange.steps.run()
    exchange.steps.day.follow()


def test_orders_for_the_open_are_executed_there_or_cancelled() -> None:
    exchange, clock, send = _exchange("2026-07-24T12:00:00Z")
    good, poor = send(time_in_force="opg", limit_price="300"), send(time_in_force="opg")

    _travel(exchange, clock, "2026-07-24T13:29:59Z")
    assert (good.status, poor.status) == ("accepted", "accepted")
    _travel(exchange, clock, "2026-07-24T13:31:00Z")

    assert (good.status, poor.status) == ("filled", "canceled")


def test_orders_for_the_close_are_executed_there_or_cancelled() -> None:
    exchange, clock, send = _exchange("2026-07-24T15:00:00Z")
    good, poor = send(time_in_force="cls", limit_price="300"), send(time_in_force="cls")

    _travel(exchange, clock, "2026-07-24T19:59:59Z")
    assert (good.status, poor.status) == ("new", "new")
    _travel(exchange, clock, "2026-07-24T20:00:01Z")

    assert (good.status, poor.status) == ("filled", "canceled")


@pytest.mark.parametrize(
    ("moment", "kind", "is_taken"),
    [
        ("2026-07-24T13:27:59Z", "opg", True),
        ("2026-07-24T13:28:00Z", "opg", False),
        ("2026-07-24T22:59:59Z", "opg", False),
        ("2026-07-24T23:00:00Z", "opg", True),
        ("2026-07-24T19:49:59Z", "cls", True),
        ("2026-07-24T19:50:00Z", "cls", False),
        ("2026-11-27T17:50:00Z", "cls", False),  # a short day
        ("2026-07-25T16:00:00Z", "cls", True),  # a Saturday
    ],
)
def test_auctions_take_orders_only_in_time(moment: str, kind: str, is_taken: bool) -> None:
    exchange, _, send = _exchange(moment)

    if is_taken:
        assert send(time_in_force=kind).time_in_force == kind
    else:
        with pytest.raises(Refusal, match=f"{kind} orders are not accepted"):
            send(time_in_force=kind)
        assert len(exchange.venue.book) == 0


def test_an_aged_order_is_cancelled_a_quarter_past_the_close_after_ninety_days() -> None:
    exchange, clock, send = _exchange("2026-07-24T15:00:00Z")
    order = send(time_in_force="gtc")
    assert moments.text(order.expires_at or 0) == "2026-10-22T20:00:00.000000000Z"

    _travel(exchange, clock, "2026-10-22T20:14:59Z")
    assert order.status == "new"
    _travel(exchange, clock, "2026-10-22T20:15:00Z")
    assert order.status == "pending_cancel"
    _travel(exchange, clock, "2026-10-22T20:15:01Z")

    assert order.status == "canceled"


def test_the_close_can_tell_that_it_is_done_for_the_day() -> None:
    exchange, clock, send = _exchange("2026-07-24T15:00:00Z")
    exchange.venue.options.done_for_day = True
    day, gtc = send(), send(time_in_force="gtc")

    _travel(exchange, clock, "2026-07-24T20:00:00Z")
    assert (day.status, gtc.status) == ("expired", "done_for_day")
    names = [it.body["event"] for it in exchange.venue.take_events() if it.order_id == day.id]
    assert names == ["pending_new", "new", "done_for_day", "expired"]
    _travel(exchange, clock, "2026-07-27T13:30:00Z")

    assert gtc.status == "new"
