"""The stream is cut again and again while orders fill: nothing is lost, nothing counts twice."""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings

from orders.models import Fill, Order, StreamMessage
from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.models import LedgerEntry, Position
from tests.conftest import Api, quote
from tests.listening import Listening
from tests.simulator_server import SimulatorServer
from tests.waiting import until

PARTS = 5  # executions of each order
SHARES = 10  # of each execution
# Events come twice, late and in the wrong order all the while.
DISORDER = [
    {"kind": "stream_duplicate", "count": None, "probability": 0.1},
    {"kind": "stream_swap", "count": None, "probability": 0.1},
    {"kind": "stream_delay", "count": None, "probability": 0.1, "seconds": 0.3},
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_history", [True, False], ids=["by history", "from orders and fills"])
@pytest.mark.parametrize(
    ("fills", "aborts"), [(100, 5), pytest.param(500, 20, marks=pytest.mark.long)]
)
def test_no_fill_is_lost_or_doubled_and_each_is_noticed_within_15_seconds_of_happening(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    order: Callable[..., dict[str, Any]],
    fills: int,
    aborts: int,
    has_history: bool,
    settings: LazySettings,
    caplog: pytest.LogCaptureFixture,
    alike_allowed: None,
) -> None:
    settings.STREAM_QUIET_SECONDS = 0.3
    caplog.set_level("INFO", "ordinis.stream")
    sim.post("/sim/options", {"sse": has_history})
    quote(sim, "KO", "61")
    chance = random.Random(fills)
    with Listening(account):
        until(lambda: _is_listened_to(sim))
        for number in range(fills // PARTS):
            answer = api.post(
                "/orders",
                order(
                    symbol="KO",
                    qty=str(PARTS * SHARES),
                    reference_price="60",
                    client_order_id=f"storm-{number}",
                ),
            )
            assert answer.json()["status"] in ("pending_new", "new"), answer.json()
        turns = [f"storm-{number}" for number in range(fills // PARTS)] * PARTS
        chance.shuffle(turns)
        sim.post("/sim/faults", DISORDER)
        for turn, client_order_id in enumerate(turns):
            if turn == fills - PARTS:
                sim.delete("/sim/faults")  # else the last event may be kept back for good
            if turn % (fills // aborts) == 5:
                sim.post("/sim/faults", [{"kind": "stream_close"}])
            elif turn % (fills // aborts) == 15:  # ten fills later it may come back
                until(lambda: _is_listened_to(sim))
                if has_history:  # while it is never quiet, it is not read to its end
                    closed = turn // (fills // aborts) + 2
                    until(lambda: caplog.text.count("gap in the stream is closed") == closed)  # noqa: B023 used at once
            price = f"{chance.randint(5900, 6000) / 100}"
            sim.post(
                "/sim/fill", {"client_order_id": client_order_id, "qty": SHARES, "price": price}
            )
        until(lambda: not Order.objects.exclude(status="filled").exists(), seconds=20)
        until(lambda: not StreamMessage.objects.filter(processed_at=None).exists())

    happened = _executions(sim)
    assert len(happened) == fills
    assert Order.objects.filter(filled_qty=PARTS * SHARES).count() == fills // PARTS
    assert sum(LedgerEntry.objects.values_list("qty", flat=True)) == fills * SHARES
    assert sum(Fill.objects.values_list("qty", flat=True)) == fills * SHARES
    assert Position.objects.get(symbol="KO").qty == fills * SHARES
    theirs = {
        order["client_order_id"]: Decimal(order["filled_avg_price"])
        for order in sim.get("/sim/state")["orders"]
    }
    for row in Order.objects.all():
        assert row.average_fill_price is not None
        assert abs(row.average_fill_price - theirs[row.client_order_id]) < Decimal("0.000001")
    booked = Fill.objects.exclude(execution_id=None).values_list("execution_id", flat=True)
    executed = [execution["id"].split("::")[1] for execution in happened]
    if has_history:  # each by itself, at its own price
        assert sorted(map(str, booked)) == sorted(executed)
    else:  # what was missed of an order comes as one
        assert len(booked) == len(set(booked) & set(executed))
    assert list(violations()) == []
    late = _noticed_after(happened)
    print(  # noqa: T201
        f"{fills} fills, {aborts} aborts: the last was noticed {max(late):.2f} s after it "
        f"happened, half of them within {sorted(late)[fills // 2]:.3f} s; "
        f"{Fill.objects.filter(inferred=True).count()} inferred"
    )
    assert max(late) < 15


def _is_listened_to(sim: SimulatorServer) -> bool:
    return bool(sim.get("/sim/state")["stream_listeners"])


def _executions(sim: SimulatorServer) -> list[dict[str, Any]]:
    """Every execution at the broker, oldest first."""
    found: list[dict[str, Any]] = []
    while True:
        query = {"direction": "asc", "page_size": "100"}
        if found:
            query["page_token"] = found[-1]["id"]
        answer = sim.trading("GET", "/v2/account/activities/FILL", params=query)
        page = answer.json()
        found += page
        if len(page) < 100:
            return found


def _noticed_after(happened: list[dict[str, Any]]) -> list[float]:
    """Seconds from each execution to the moment at which the book had as many shares of its
    order."""
    booked: dict[str, list[tuple[datetime, Decimal]]] = defaultdict(list)
    for fill in Fill.objects.select_related("order").order_by("recorded_at", "id"):
        rows = booked[str(fill.order.broker_order_id)]
        rows.append((fill.recorded_at, fill.qty + (rows[-1][1] if rows else 0)))
    seconds = []
    for execution in happened:
        needed = Decimal(execution["cum_qty"])
        at = next(moment for moment, qty in booked[execution["order_id"]] if qty >= needed)
        seconds.append((at - datetime.fromisoformat(execution["transaction_time"])).total_seconds())
    return seconds
