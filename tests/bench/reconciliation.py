"""How long one comparison takes, beside the broker's own answers, and what it takes of memory."""

import resource
import statistics
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.bench.measure import timed

if TYPE_CHECKING:
    from ordinis.accounts.models import BrokerAccount

_RUNS = 7


def measure() -> None:
    """Seconds of a whole run less those of the broker's bare answers: 1,000 positions with 1,000
    open orders, and 10,000 positions."""
    from django.conf import settings

    from ordinis.accounts.brokers import _adapter
    from ordinis.accounts.models import BrokerAccount
    from tests.simulator_server import SimulatorServer

    before = settings.BROKER_URL
    for number, (positions, orders) in enumerate(((1_000, 1_000), (10_000, 0))):
        with SimulatorServer(seed=11 + number) as sim:
            settings.BROKER_URL = sim.url
            _adapter.cache_clear()
            # Every simulator has the same number, and an account has one book.
            BrokerAccount.objects.update(account_number="")
            account = BrokerAccount.objects.create(
                name=f"book-{positions}", broker="simulator", mode="simulated"
            )
            sim.post("/sim/price", {"hold": True})
            _hold(sim, positions)
            _one(account, sim, positions, orders)
    settings.BROKER_URL = before
    _adapter.cache_clear()


def _hold(sim: Any, count: int) -> None:
    symbols = [f"A{number:05}" for number in range(count)]
    for start in range(0, count, 500):
        part = symbols[start : start + 500]
        sim.post("/sim/symbol", [{"symbol": symbol, "price": "10"} for symbol in part])
        held = [{"symbol": symbol, "qty": "10", "average_price": "10"} for symbol in part]
        sim.post("/sim/position", held)


def _order(sim: Any, account: "BrokerAccount", count: int) -> None:
    """Orders that rest at the broker, and are known here as if we had sent them."""
    from django.utils import timezone

    from orders.models import Order
    from ordinis.accounts.models import Strategy

    strategy = Strategy.objects.create(account=account, name="bench")
    rows = []
    for number in range(count):
        body = {
            "symbol": f"A{number:05}",
            "side": "buy",
            "qty": "1",
            "type": "limit",
            "limit_price": "5",
            "time_in_force": "gtc",
            "client_order_id": f"bench-{number}",
        }
        told = sim.trading("POST", "/v2/orders", json=body).json()
        key = uuid.uuid4()
        rows.append(
            Order(
                id=key,
                chain=key,
                account=account,
                strategy=strategy,
                client_order_id=body["client_order_id"],
                broker_order_id=told["id"],
                fingerprint="",
                symbol=body["symbol"],
                side="buy",
                qty=Decimal(1),
                type="limit",
                time_in_force="gtc",
                limit_price=Decimal(5),
                status="new",
                acknowledged_at=timezone.now(),
                correlation_id="bench",
            )
        )
    Order.objects.bulk_create(rows)


def _one(account: "BrokerAccount", sim: Any, positions: int, orders: int) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from reconciliation.run import reconcile

    opened = reconcile(account)
    assert opened.complete, opened.reason
    _order(sim, account, orders)
    own, whole, least = [], [], []
    for _ in range(_RUNS):
        report = reconcile(account)
        assert (report.complete, report.differences_count) == (True, 0), report.differences[:3]
        floor = timed(lambda: _answers(sim))
        least.append(floor)
        own.append(float(report.duration_seconds) - floor)
        whole.append(float(report.duration_seconds))
    with CaptureQueriesContext(connection) as queries:
        reconcile(account)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(  # noqa: T201
        f"{positions} positions, {orders} open orders reconciled: {statistics.median(own):.2f} s "
        f"beside the broker's answers, {statistics.median(whole):.2f} s with them, "
        f"{len(queries)} queries; floor: the answers as they come {statistics.median(least):.2f} s,"
        f" ratio {statistics.median(whole) / statistics.median(least):.1f}; peak memory of the "
        f"process {peak:.0f} MB"
    )


def _answers(sim: Any) -> None:
    """The bodies that a run asks for, unread."""
    last: dict[str, str] = {}
    while True:
        page = sim.trading("GET", "/v2/orders", params={"status": "open", "limit": 500, **last})
        orders = page.json()
        if len(orders) < 500:
            break
        last = {"before_order_id": orders[-1]["id"]}
    for path in ("/v2/account/activities/FILL", "/v2/positions", "/v2/account"):
        assert sim.trading("GET", path).content
