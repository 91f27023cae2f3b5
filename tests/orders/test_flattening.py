"""Positions are closed by ordinary limit orders that only reduce, each sent once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from orders import wake
from orders.flattening import Closing, TradingHalted, flatten, marketable, propose
from orders.halting import halt, reduce
from orders.models import Order
from orders.pricing import is_on_tick
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.broker.errors import BrokerUnavailable
from ordinis.verify import violations
from reconciliation.run import reconcile
from tests.conftest import Api, hold, quote, sent
from tests.orders.standing import held_at_broker, polled
from tests.simulator_server import SimulatorServer
from tests.waiting import until

TOKEN = "0123456789abcdef"


@pytest.fixture
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


database = pytest.mark.usefixtures("_books_are_right")
real = pytest.mark.django_db(transaction=True)


def _long_and_short(sim: SimulatorServer, account: BrokerAccount) -> None:
    for symbol, qty, price in (("AAPL", "100", "210"), ("TSLA", "-20", "250")):
        hold(sim, symbol, qty, price)
        quote(sim, symbol, price)
    reconcile(account)  # opens the book


@pytest.mark.parametrize(
    ("side", "price", "slippage", "expected"),
    [
        ("sell", "210", "1", "207.9"),
        ("buy", "250", "1", "252.5"),
        ("sell", "210", "0", "210"),
        ("sell", "10.005", "0", "10"),
        ("buy", "10.005", "0", "10.01"),
        ("sell", "1.004", "1", "0.9939"),
        ("buy", "0.9999", "5", "1.05"),
        ("sell", "0.0001", "5", "0.0001"),
    ],
)
def test_a_limit_price_is_moved_to_where_it_trades_and_lies_on_the_tick(
    side: str, price: str, slippage: str, expected: str
) -> None:
    assert marketable(side, Decimal(price), Decimal(slippage)) == Decimal(expected)


@given(
    side=st.sampled_from(["buy", "sell"]),
    price=st.decimals("0.0001", "9999", places=4),
    slippage=st.decimals("0", "5", places=2),
)
def test_every_limit_price_is_on_the_tick_and_on_the_marketable_side(
    side: str, price: Decimal, slippage: Decimal
) -> None:
    limit = marketable(side, price, slippage)

    assert limit > 0
    assert is_on_tick(limit)
    assert limit >= price if side == "buy" else limit <= price or limit == Decimal("0.0001")


@real
@database
def test_each_position_gets_an_order_that_closes_what_is_free_of_it(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)

    aapl, tsla = propose(account, Decimal(1))

    assert (aapl.symbol, aapl.side, aapl.held, aapl.qty) == ("AAPL", "sell", 100, 100)
    assert (aapl.price, aapl.limit_price) == (210, Decimal("207.90"))
    assert (tsla.symbol, tsla.side, tsla.held, tsla.qty) == ("TSLA", "buy", -20, 20)
    assert (tsla.price, tsla.limit_price) == (250, Decimal("252.50"))
    assert sent(sim) == []
    assert not Order.objects.exists()
    assert not Strategy.objects.filter(name="operator").exists()


@real
@database
def test_what_open_orders_hold_is_not_closed_and_it_is_said_what_to_do(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: Any
) -> None:
    hold(sim, "TSLA", "50", "240")
    quote(sim, "TSLA", "240")
    exits = api.post("/orders", order(side="sell", qty="50", reference_price="300"))
    assert exits.status_code == 201
    polled(exits.json()["id"], "new")

    (closing,) = propose(account, Decimal(1))

    assert (closing.qty, closing.limit_price) == (0, None)
    assert "Cancel them first" in closing.problem
    assert flatten(account, [closing], token=TOKEN, actor="ann")[0].problem == closing.problem
    assert len(sent(sim)) == 1


@pytest.mark.parametrize("slippage", ["-0.01", "5.01", "NaN", "Infinity"])
def test_a_slippage_beyond_five_per_cent_is_refused(slippage: str) -> None:
    with pytest.raises(ValueError, match="0 to 5 per cent"):
        propose(BrokerAccount(name="main"), Decimal(slippage))


@real
@database
def test_flattening_closes_longs_and_shorts_by_limit_orders_that_only_reduce(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)
    reduce(account, reason="closing down", actor="ann")

    told = flatten(account, propose(account, Decimal(1)), token=TOKEN, actor="ann")

    assert [each.problem for each in told] == ["", ""]
    for each in told:
        assert each.order is not None
        done = polled(each.order.pk, "filled")
        assert (done.type, done.reduce_only, done.strategy.name) == ("limit", True, "operator")
        assert done.history.order_by("seq")[0].actor == "ann"
    assert (held_at_broker(sim, "AAPL"), held_at_broker(sim, "TSLA")) == (0, 0)
    assert {order["type"] for order in sim.get("/sim/state")["orders"]} == {"limit"}
    assert not [each for each in sim.get("/sim/log?method=DELETE") if "positions" in each["path"]]


@real
@database
def test_the_same_form_twice_at_once_sends_every_order_once(
    sim: SimulatorServer, account: BrokerAccount, alike_allowed: None
) -> None:
    _long_and_short(sim, account)
    closings = propose(account, Decimal(1))

    def press(_: int) -> Any:
        try:
            return flatten(account, closings, token=TOKEN, actor="ann")
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(press, range(2))

    assert len(sent(sim)) == 2
    assert [each.order.pk for each in first] == [each.order.pk for each in second]
    assert Order.objects.count() == 2


@real
@database
def test_what_could_not_be_sent_is_sent_by_the_next_press(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)
    closings = propose(account, Decimal(1))
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/.*", "count": None}])
    first = flatten(account, closings, token=TOKEN, actor="ann")
    sim.delete("/sim/faults")

    second = flatten(account, closings, token=TOKEN, actor="ann")

    assert [each.order for each in first] == [None, None]
    assert [each.problem for each in second] == ["", ""]
    assert sorted(each["body"]["symbol"] for each in sent(sim)) == ["AAPL", "TSLA"]


@real
@database
def test_nothing_is_sent_while_the_account_is_halted(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)
    closings = propose(account, Decimal(1))
    halt(account, reason="stop", actor="ann")

    with pytest.raises(TradingHalted, match="reduce only first"):
        flatten(account, closings, token=TOKEN, actor="ann")

    assert sent(sim) == []
    assert not Order.objects.exists()


@real
@database
def test_a_position_that_was_closed_meanwhile_is_not_turned_around(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)
    closings = propose(account, Decimal(1))
    hold(sim, "AAPL", "0", "210")

    aapl, _ = flatten(account, closings, token=TOKEN, actor="ann")

    assert aapl.order is not None
    assert aapl.order.status == "denied"
    assert "nothing_to_reduce" in [each["code"] for each in aapl.order.violations]
    assert held_at_broker(sim, "AAPL") == 0


@real
@database
def test_a_broker_that_does_not_answer_is_said_and_nothing_is_sent(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _long_and_short(sim, account)
    closings = propose(account, Decimal(1))
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/.*", "count": None}])

    told = flatten(account, closings, token=TOKEN, actor="ann")

    assert [each.order for each in told] == [None, None]
    with pytest.raises(BrokerUnavailable):
        propose(account, Decimal(1))
    sim.delete("/sim/faults")
    assert sent(sim) == []


@pytest.mark.django_db
def test_a_token_that_the_form_did_not_make_is_refused(account: BrokerAccount) -> None:
    closing = Closing(
        symbol="AAPL", side="sell", held=Decimal(1), qty=Decimal(1), price=None, limit_price=None
    )
    with pytest.raises(ValueError, match="open it again"):
        flatten(account, [closing], token="../1", actor="ann")

    assert not Strategy.objects.exists()
