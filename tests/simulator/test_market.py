"""Market hours: New York's sessions, and what they do to orders."""

from collections.abc import Callable

import pytest

from ordinis.simulator import moments
from ordinis.simulator.exchange import Exchange
from ordinis.simulator.market import Market
from ordinis.simulator.order import Order
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
    exchange.steps.follow_market()

    assert (day.status, gtc.status) == ("expired", "new")


def test_an_order_sent_at_night_waits_for_the_morning() -> None:
    exchange, clock, send = _exchange("2026-07-24T02:00:00Z")
    order = send(limit_price="300")
    assert order.status == "accepted"

    clock.set("2026-07-24T13:30:00Z")
    exchange.steps.follow_market()
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
    exchange.steps.follow_market()
    assert extended.status == "new"

    clock.set("2026-07-25T00:00:00Z")
    exchange.steps.follow_market()

    assert extended.status == "expired"
