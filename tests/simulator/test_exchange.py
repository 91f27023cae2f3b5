"""The engine alone: whatever clients do, the sums stay right."""

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ordinis.simulator import holding, moments
from ordinis.simulator.exchange import Exchange
from ordinis.simulator.history import TRADES
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.request import ReplaceRequest, parse_order
from ordinis.simulator.venue import INITIAL_CASH

CENT = Decimal("0.01")
SYMBOLS = ("TSLA", "OKE", "STWD")


class StillClock:
    """Moves only when told, and one nanosecond each time it is read."""

    def __init__(self) -> None:
        self.now = 1_795_000_000 * moments.SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Desk:
    """One exchange and somebody who does anything at all to it."""

    def __init__(self, seed: int) -> None:
        self.clock = StillClock()
        self.exchange = Exchange(self.clock, seed)
        self.random = random.Random(seed)
        self.exchange.venue.options.partial_fill_probability = 0.5
        self.sent = 0

    def act(self) -> None:
        action = self.random.choice((self._send, self._send, self._cancel, self._replace))
        try:
            action()
        except Refusal:
            return

    def pass_time(self) -> None:
        self.clock.now += self.random.randrange(80_000_000)
        self.exchange.steps.run()
        if self.random.random() < 0.3:
            self.exchange.steps.tick()

    def _send(self) -> None:
        symbol = self.random.choice(SYMBOLS)
        side = self.random.choice(("buy", "sell"))
        quote = self.exchange.venue.prices[symbol]
        near = quote.last * self.random.randrange(97, 104) / 100
        self.sent += 1
        body = {
            "symbol": symbol,
            "side": side,
            "qty": self.random.randrange(1, 2000),
            "type": "limit",
            "limit_price": str(near.quantize(CENT)),
            "time_in_force": self.random.choice(("day", "gtc", "ioc", "fok")),
            "client_order_id": f"o{self.sent}",
        }
        if self.random.random() < 0.5:
            body |= self._group(side, quote.last)
        self.exchange.submit(parse_order(body, self.exchange.venue.listing))

    def _group(self, side: str, price: Decimal) -> dict[str, Any]:
        """Exits close by, so that they go off."""
        kind = self.random.choice(("oco", "bracket", "oto"))
        sells = (side == "sell") == (kind == "oco")
        above, below = (str((price * part / 1000).quantize(CENT)) for part in (1001, 999))
        exits = {
            "take_profit": {"limit_price": above if sells else below},
            "stop_loss": {"stop_price": below if sells else above},
        }
        if kind == "oto":
            del exits[self.random.choice(("take_profit", "stop_loss"))]
        group = {"order_class": kind, "time_in_force": "gtc", **exits}
        return group | {"limit_price": None if kind == "oco" else str(price)}

    def _cancel(self) -> None:
        if orders := self.exchange.venue.book.open():
            self.exchange.cancel(self.random.choice(orders).id)

    def _replace(self) -> None:
        if orders := self.exchange.venue.book.open():
            self.sent += 1
            order = self.random.choice(orders)
            qty, limit_price, stop_price = Decimal(self.random.randrange(1, 3000)), None, None
            price = self.exchange.venue.prices[order.symbol].last.quantize(CENT)
            if order.order_class:
                limit_price = price if order.limit_price else None
                stop_price = price if order.stop_price else None
            change = ReplaceRequest(
                None if order.order_class else qty, limit_price, stop_price, None, None, ""
            )
            self.exchange.replace(order.id, change)

    def check(self) -> None:
        venue = self.exchange.venue
        fills = venue.activities
        for symbol in SYMBOLS:
            traded = sum(
                (
                    Decimal(fill["qty"]) * (1 if fill["side"] == "buy" else -1)
                    for fill in fills
                    if fill["symbol"] == symbol
                ),
                Decimal(0),
            )
            assert venue.portfolio.qty(symbol) == traded
            # No shares are promised twice, whatever became of the orders of a group.
            assert holding.held(venue, symbol, "sell") <= max(traded, Decimal(0))
            assert holding.held(venue, symbol, "buy") <= max(-traded, Decimal(0))
        spent = sum(
            (
                Decimal(fill["qty"]) * Decimal(fill["price"]) * (1 if fill["side"] == "buy" else -1)
                for fill in fills
            ),
            Decimal(0),
        )
        assert venue.portfolio.cash == INITIAL_CASH - spent
        held = sum((order.reserved for order in venue.book), Decimal(0))
        assert venue.portfolio.reserved == held
        assert all(order.reserved == 0 for order in venue.book if not order.is_open)
        market_value = sum(
            (it.qty * venue.prices[it.symbol].last for it in venue.portfolio), Decimal(0)
        )
        assert venue.portfolio.equity == venue.portfolio.cash + market_value
        for order in venue.book:
            assert order.filled_qty <= order.shares
            assert (order.status == "filled") == (order.filled_qty == order.shares)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_sent_positions_cash_and_reservations_add_up(seed: int) -> None:
    desk = Desk(seed)
    for _ in range(60):
        desk.act()
        desk.pass_time()
        desk.check()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_events_of_an_order_tell_its_fills_completely(seed: int) -> None:
    desk = Desk(seed)
    for _ in range(60):
        desk.act()
        desk.pass_time()
    told = desk.exchange.venue.take_events()
    events = [it.body for it in told if it.channel == TRADES]

    executed = [event for event in events if event["event"] in {"fill", "partial_fill"}]
    assert len({event["execution_id"] for event in executed}) == len(executed)
    assert [event["event_id"] for event in events] == sorted(event["event_id"] for event in events)
    assert sum(Decimal(event["qty"]) for event in executed) == sum(
        Decimal(fill["qty"]) for fill in desk.exchange.venue.activities
    )


def test_event_ids_rise_even_when_the_clock_goes_back() -> None:
    first = moments.next_ulid(2_000 * moments.SECOND, 0, b"noise")

    second = moments.next_ulid(1_000 * moments.SECOND, first, b"noise")

    assert moments.ulid_text(second) > moments.ulid_text(first)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("2026-07-24T14:42:50.129256359Z", "2026-07-24T14:42:50.129256359Z"),
        ("2026-07-24T10:42:50.5-04:00", "2026-07-24T14:42:50.500000000Z"),
        ("2026-01-02T03:04:05 00:00", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02", "2026-01-02T00:00:00.000000000Z"),
    ],
)
def test_moments_keep_their_nanoseconds(text: str, again: str) -> None:
    assert moments.text(moments.parse(text)) == again
