"""Sixteen callers in four processes on one account: nothing is doubled, nothing is lost, nobody
waits for ever."""

import json
from collections import Counter
from pathlib import Path
from subprocess import Popen

import pytest

from orders import jobs, statuses, wake
from orders.models import Order
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from positions.models import Position
from tests import other_process
from tests.listening import Listening, listeners
from tests.orders.callers import SHARED
from tests.orders.standing import heard, held_at_broker
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
CALLERS, EACH = 16, 4


def test_sixteen_callers_in_four_processes_neither_double_nor_lose_nor_block_anything(
    sim: SimulatorServer, account: BrokerAccount, strategy: Strategy, tmp_path: Path
) -> None:
    _, token = ApiToken.issue(strategy, SCOPES)
    lost = {"kind": "drop_after", "probability": 0.2, "count": None}
    sim.post("/sim/faults", [{**lost, "method": "POST", "path": "/v2/orders", "body": "-7|-12"}])
    sim.post("/sim/faults", [{**lost, "method": "PATCH", "path": "/v2/orders/.*"}])
    callers = [
        other_process.start(
            "tests.orders.callers",
            *(token, str(first), str(EACH), str(CALLERS), str(tmp_path)),
            broker=sim.url,
        )
        for first in range(0, CALLERS, EACH)
    ]

    with Listening(account):
        until(lambda: listeners(sim) == 1)
        told = [json.loads(_line(each)) for each in callers for _ in range(EACH)]
        assert [each.wait(10) for each in callers] == [0] * len(callers)
        sim.delete("/sim/faults")
        until(lambda: _all_is_settled(sim), every=0.2)

    codes = Counter(code for each in told for code in each["codes"])
    assert set(codes) <= {200, 201, 202, 422}, codes
    assert max(each["longest"] for each in told) < 10

    there = {order["client_order_id"]: order for order in sim.get("/sim/state")["orders"]}
    assert len(there) == len(sim.get("/sim/state")["orders"]), "none is doubled"
    here = {order.client_order_id: order for order in Order.objects.all()}
    for name, order in there.items():
        assert here[name].status == order["status"], "none is unknown or out of date"
    for each in told:
        for name, order_id in each["orders"].items():
            standing = here.get(name) or Order.objects.get(bound_ids__client_order_id=name)
            assert str(standing.pk) == order_id, "an id stands for ever for what was answered"
    for symbol in SHARED:
        assert Order.objects.filter(symbol=symbol, replaces=None).count() == 1
    (first,) = Order.objects.filter(symbol=SHARED[0], replaces=None)
    assert first.replacements.exclude(status__in=("denied", "rejected")).count() == 1
    second = Order.objects.get(symbol=SHARED[1])
    assert second.status == "canceled"
    assert heard(sim, "DELETE").count(f"/v2/orders/{second.broker_order_id}") == 1

    for position in Position.objects.all():
        assert position.qty == held_at_broker(sim, position.symbol)
    assert list(violations()) == []


def _line(process: "Popen[str]") -> str:
    assert process.stdout is not None
    return str(process.stdout.readline()).strip()


def _all_is_settled(sim: SimulatorServer) -> bool:
    """Every answer that was lost is found, every cancel has ended."""
    jobs.resolve()
    jobs.pursue_cancels()
    jobs.follow_up()
    jobs.poll()
    undecided = Order.objects.filter(status__in=sorted(statuses.UNPROVED))
    wanted = Order.objects.filter(cancel_requested_at__isnull=False).exclude(
        status__in=sorted(statuses.CLOSED)
    )
    return wake.is_idle() and not undecided.exists() and not wanted.exists()
