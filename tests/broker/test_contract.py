"""The port's contract, against the simulator, and against Alpaca's paper account when its keys are
in the environment (else those are left out: the only tests that may be)."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.errors import DuplicateClientOrderId, OrderRefused
from ordinis.broker.port import BROKER_STATUSES, OrderReport, OrderRequest, ReplaceRequest
from tests.simulator_server import SimulatorServer
from tests.waiting import until

# Far below the market, so that it rests; a share costs a cent of buying power.
FAR = Decimal("1.00")


@pytest.fixture(params=["simulator", "paper"])
def broker(request: pytest.FixtureRequest) -> Iterator[AlpacaBroker]:
    if request.param == "simulator":
        with SimulatorServer(seed=3) as sim:
            yield AlpacaBroker(url=sim.url, key_id="k", secret_key="s", timeout=5)
        return
    keys = os.environ.get("APCA_API_KEY_ID"), os.environ.get("APCA_API_SECRET_KEY")
    if not all(keys):
        pytest.skip("APCA_API_KEY_ID and APCA_API_SECRET_KEY of a paper account are not set")
    paper = AlpacaBroker(
        url="https://paper-api.alpaca.markets",
        key_id=str(keys[0]),
        secret_key=str(keys[1]),
        timeout=10,
    )
    yield paper
    paper.cancel_all()


def _order(**changes: Any) -> OrderRequest:
    values: dict[str, Any] = {
        "client_order_id": f"contract-{uuid4()}",
        "symbol": "AAPL",
        "side": "buy",
        "qty": Decimal(1),
        "type": "limit",
        "time_in_force": "day",
        "limit_price": FAR,
        "extended_hours": False,
    }
    return OrderRequest(**{**values, **changes})


def _resting(broker: AlpacaBroker, **changes: Any) -> OrderReport:
    """An order that the venue has acknowledged."""
    sent = broker.submit(_order(**changes))

    def acknowledged() -> OrderReport | None:
        found = broker.order(sent.broker_order_id)
        return found if found and found.status in ("new", "accepted") else None

    found = until(acknowledged, seconds=20, every=0.1)
    assert found
    return found


def test_the_account_has_its_figures(broker: AlpacaBroker) -> None:
    account = broker.account()

    assert account.account_number
    assert account.equity > 0
    assert account.status == "ACTIVE"


def test_a_position_that_is_not_held_is_none_and_the_list_is_complete(
    broker: AlpacaBroker,
) -> None:
    assert broker.position("BRK.B") is None
    assert broker.positions().complete


def test_an_order_is_confirmed_and_found_by_both_its_ids(broker: AlpacaBroker) -> None:
    request = _order()

    sent = broker.submit(request)

    assert sent.client_order_id == request.client_order_id
    assert (sent.symbol, sent.side, sent.qty, sent.limit_price) == ("AAPL", "buy", 1, FAR)
    assert sent.status in BROKER_STATUSES
    assert (sent.filled_qty, sent.average_fill_price) == (0, None)
    for found in (
        broker.order(sent.broker_order_id),
        broker.order_by_client_id(sent.client_order_id),
    ):
        assert found is not None
        assert found.broker_order_id == sent.broker_order_id


def test_an_order_nobody_knows_is_none(broker: AlpacaBroker) -> None:
    assert broker.order(str(uuid4())) is None
    assert broker.order_by_client_id(f"contract-{uuid4()}") is None


def test_a_client_order_id_makes_one_order_for_ever(broker: AlpacaBroker) -> None:
    resting = _resting(broker)

    with pytest.raises(DuplicateClientOrderId):
        broker.submit(_order(client_order_id=resting.client_order_id))
    broker.cancel(resting.broker_order_id)
    _ends_as(broker, resting, "canceled")
    with pytest.raises(DuplicateClientOrderId):
        broker.submit(_order(client_order_id=resting.client_order_id))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symbol": "ZZZZNOTREAL"}, "not found"),
        ({"limit_price": Decimal("1.001")}, "sub-penny"),
        ({"qty": Decimal(10_000_000), "limit_price": Decimal(100)}, "buying power"),
    ],
)
def test_a_refusal_is_definite_and_spends_no_client_order_id(
    broker: AlpacaBroker, changes: dict[str, Any], words: str
) -> None:
    request = _order(**changes)

    with pytest.raises(OrderRefused, match=words) as refused:
        broker.submit(request)

    assert refused.value.code.isdigit()
    assert refused.value.for_funds == (words == "buying power")
    if refused.value.for_funds:
        assert (refused.value.amount("cost_basis") or 0) > (
            refused.value.amount("buying_power") or 0
        )
    assert broker.order_by_client_id(request.client_order_id) is None
    assert broker.submit(_order(client_order_id=request.client_order_id)).qty == 1


def test_a_cancel_is_taken_up_and_then_confirmed(broker: AlpacaBroker) -> None:
    resting = _resting(broker)

    assert broker.cancel(resting.broker_order_id)

    _ends_as(broker, resting, "canceled")
    assert not broker.cancel(str(uuid4()))


def test_a_replace_gives_a_successor_under_a_new_id(broker: AlpacaBroker) -> None:
    resting = _resting(broker)
    new_id = f"contract-{uuid4()}"

    successor = broker.replace(
        resting.broker_order_id,
        ReplaceRequest(client_order_id=new_id, limit_price=Decimal("1.01"), qty=Decimal(2)),
    )

    assert successor.replaces == resting.broker_order_id
    assert (successor.client_order_id, successor.qty) == (new_id, 2)
    old = _ends_as(broker, resting, "replaced")
    assert old.replaced_by == successor.broker_order_id


def test_all_open_orders_are_listed_and_cancelled_at_once(broker: AlpacaBroker) -> None:
    resting = {_resting(broker).broker_order_id for _ in range(3)}

    listed = broker.open_orders()
    assert listed.complete
    assert resting <= {order.broker_order_id for order in listed.items}
    cancelled = broker.cancel_all()

    assert resting <= {report.broker_order_id for report in cancelled if report.accepted}
    until(lambda: not broker.open_orders().items, seconds=20, every=0.2)


def test_orders_since_a_moment_hold_the_closed_ones_too(broker: AlpacaBroker) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    resting = _resting(broker)
    broker.cancel(resting.broker_order_id)
    _ends_as(broker, resting, "canceled")

    listed = broker.orders_since(before)

    assert listed.complete
    found = {order.broker_order_id: order.status for order in listed.items}
    assert found[resting.broker_order_id] == "canceled"
    assert broker.orders_since(datetime.now(UTC) + timedelta(minutes=1)).items == ()


def test_the_clock_and_the_calendar_agree_on_the_next_session(broker: AlpacaBroker) -> None:
    clock = broker.clock()
    days = broker.calendar(date(2026, 11, 23), date(2026, 11, 27))

    assert abs(clock.timestamp - datetime.now(UTC)) < timedelta(seconds=10)
    assert clock.next_close > clock.timestamp
    assert days.complete
    assert {day.day for day in days.items} >= {date(2026, 11, 23), date(2026, 11, 24)}
    assert date(2026, 11, 26) not in {day.day for day in days.items}, "Thanksgiving"


def test_an_asset_says_what_may_be_done_with_it(broker: AlpacaBroker) -> None:
    asset = broker.asset("AAPL")

    assert asset is not None
    assert (asset.symbol, asset.asset_class, asset.tradable) == ("AAPL", "us_equity", True)
    assert broker.asset("ZZZZNOTREAL") is None


def test_all_assets_are_listed(broker: AlpacaBroker) -> None:
    listed = broker.assets()

    assert listed.complete
    assert "AAPL" in {asset.symbol for asset in listed.items}


def test_activities_are_listed_completely(broker: AlpacaBroker) -> None:
    assert broker.fills_since(datetime.now(UTC) - timedelta(hours=1)).complete
    assert broker.activities(datetime.now(UTC).date()).complete


def test_new_orders_can_be_suspended_at_the_broker(broker: AlpacaBroker) -> None:
    try:
        assert broker.suspend_trade(True).suspend_trade
        assert broker.configuration().suspend_trade
    finally:
        assert not broker.suspend_trade(False).suspend_trade


def test_a_fill_is_an_activity_with_its_order(sim: SimulatorServer) -> None:
    broker = AlpacaBroker(url=sim.url, key_id="k", secret_key="s", timeout=5)
    start = datetime.now(UTC) - timedelta(seconds=5)
    sim.post("/sim/price", {"symbol": "AAPL", "bid": "200", "ask": "200"})
    sent = broker.submit(_order(limit_price=Decimal(201), qty=Decimal(3)))
    _ends_as(broker, sent, "filled")

    (fill,) = broker.fills_since(start).items

    assert (fill.order_id, fill.symbol, fill.side) == (sent.broker_order_id, "AAPL", "buy")
    assert (fill.qty, fill.price, fill.cum_qty) == (3, 200, 3)


def test_every_page_of_fills_is_read(sim: SimulatorServer) -> None:
    broker = AlpacaBroker(url=sim.url, key_id="k", secret_key="s", timeout=5)
    start = datetime.now(UTC) - timedelta(seconds=5)
    for _ in range(230):
        sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "1"})

    fills = broker.fills_since(start)

    assert (len(fills.items), fills.complete) == (230, True)
    moments = [fill.occurred_at for fill in fills.items if fill.occurred_at]
    assert moments == sorted(moments)


def _ends_as(broker: AlpacaBroker, order: OrderReport, status: str) -> OrderReport:
    def ended() -> OrderReport | None:
        found = broker.order(order.broker_order_id)
        return found if found and found.status == status else None

    found = until(ended, seconds=20, every=0.1)
    assert found
    return found
