"""2025-10-10: parents believed filled while still open at the broker (OKE 9, STWD 37, EPD, ET).

Here the parents fill one by one, and at every moment the platform believes what the broker says.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from orders import jobs
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.models import Position
from reconciliation.run import reconcile
from tests.conftest import Api, quote
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

# Symbol, shares (OKE and STWD as the broker's refusals named them), limit price.
PARENTS = (
    ("OKE", "9", "70.15"),
    ("STWD", "37", "19.05"),
    ("EPD", "24", "31.40"),
    ("ET", "45", "16.80"),
)


def test_parents_fill_one_by_one_and_the_books_agree(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    order: Callable[..., dict[str, Any]],
) -> None:
    for symbol, qty, price in PARENTS:
        quote(sim, symbol, str(Decimal(price) + 1))
        body = order(symbol=symbol, qty=qty, reference_price=None, limit_price=price)
        assert api.post("/orders", body).status_code == 201
    until(lambda: all(o["status"] == "new" for o in sim.get("/sim/state")["orders"]))

    for done, (symbol, _, price) in enumerate(PARENTS):
        jobs.poll()
        believed = set(Order.objects.filter(status="filled").values_list("symbol", flat=True))
        assert believed == {parent[0] for parent in PARENTS[:done]}
        quote(sim, symbol, price)
        until(lambda: _filled_at_broker(sim) == done + 1)  # noqa: B023 waited for at once
    jobs.poll()

    report = reconcile(account)
    assert set(Order.objects.values_list("status", flat=True)) == {"filled"}
    assert (report.compared_count, report.zombies, report.orphans) == (4, [], [])
    assert report.quantity_drifts == []
    assert {p.symbol: p.qty for p in Position.objects.all()} == {
        symbol: Decimal(qty) for symbol, qty, _ in PARENTS
    }
    assert list(violations()) == []


def _filled_at_broker(sim: SimulatorServer) -> int:
    return sum(order["status"] == "filled" for order in sim.get("/sim/state")["orders"])
