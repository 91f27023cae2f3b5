"""Orders whose answers are lost, each in one of many ways: what Ordinis makes of them, and what a
program makes of them that calls alpaca-py alone.

`python -m tests.lost_answers [ORDERS]` prints both; a sample and the full thousand are tests.
"""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulator_server import SimulatorServer

# Seconds; what "too late" means below is later than this.
TIMEOUT = 1.0
WAYS: tuple[dict[str, Any], ...] = (
    # Accepted; the answer is lost, late, or says something else.
    {"kind": "drop_after"},
    {"kind": "cut_after"},
    {"kind": "truncated_after"},
    {"kind": "empty_after"},
    {"kind": "redirect_after"},
    {"kind": "status_after", "status": 504},
    {"kind": "status_after", "status": 500},
    {"kind": "html_after", "status": 502},
    {"kind": "html_after", "status": 200},
    {"kind": "delay_after", "seconds": 1.5},
    {"kind": "drip_after", "seconds": 3},
    {"kind": "duplicate_id_after"},
    {"kind": "odd_after"},
    # Never taken, and the answer says as little.
    {"kind": "drop_before"},
    {"kind": "html_before"},
    {"kind": "empty_before"},
    {"kind": "redirect_before"},
    {"kind": "status_before", "status": 503},
    # Without the headers that say when the window ends: with them nothing would be sent until then.
    {"kind": "rate_limited", "headers": False},
    {"kind": "rate_limited", "headers": False, "retry_after": 1},
    {"kind": "unauthorized"},
    {"kind": "duplicate_id"},
    {"kind": "no_funds"},
    {"kind": "stall", "seconds": 1.5},
)
CALLERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What became of the orders; all but `orders` and `seconds` should be 0."""

    orders: int
    duplicates: int
    believed_failed_that_exist: int
    believed_alive_that_do_not: int
    undecided: int
    seconds: float  # from the end of the faults until all were definite

    def __str__(self) -> str:
        return (
            f"{self.orders} orders: {self.duplicates} doubled at the broker, "
            f"{self.believed_failed_that_exist} believed failed that exist, "
            f"{self.believed_alive_that_do_not} believed alive that don't, "
            f"{self.undecided} undecided; {self.seconds:.1f} s after the faults' end"
        )


def through_ordinis(sim: "SimulatorServer", token: str, orders: int) -> Figures:
    """Sends sells of shares held far above the market, so that they rest."""
    from django.db import connection
    from django.test import Client

    from orders import jobs, statuses
    from orders.models import Order

    ids = [f"lost-{number:04}" for number in range(orders)]
    _break(sim, {client_order_id: f'"{client_order_id}"' for client_order_id in ids})
    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})

    def send(client_order_id: str) -> None:
        body = {
            "client_order_id": client_order_id,
            "symbol": "KO",
            "side": "sell",
            "qty": "1",
            "limit_price": f"5{client_order_id[-4:-2]}.{client_order_id[-2:]}",
        }
        try:
            client.post("/api/v1/orders", body, content_type="application/json")
        finally:
            connection.close()

    def resolve_until(done: Callable[[], bool]) -> float:
        started = time.monotonic()
        while not done() and time.monotonic() - started < 60:
            jobs.resolve()
            time.sleep(0.2)
        return time.monotonic() - started

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(send, ids))
    sim.delete("/sim/faults")
    unproved = Order.objects.filter(status__in=sorted(statuses.UNPROVED))
    seconds = resolve_until(lambda: not unproved.exists())
    at_broker = Counter(order["client_order_id"] for order in sim.get("/sim/state")["orders"])
    believed = dict(Order.objects.values_list("client_order_id", "status"))
    return Figures(
        orders=len(believed),
        duplicates=sum(count - 1 for count in at_broker.values()),
        believed_failed_that_exist=sum(
            1 for key in at_broker if not statuses.is_open(believed.get(key, "failed"))
        ),
        believed_alive_that_do_not=sum(
            1
            for key, status in believed.items()
            if statuses.is_open(status) and key not in at_broker
        ),
        undecided=unproved.count(),
        seconds=seconds,
    )


def through_alpaca_py_alone(sim: "SimulatorServer", orders: int) -> Figures:
    """As a program does that takes an exception for a failure. An order is told by its quantity,
    since such a program gives no client order id."""
    from alpaca.trading.client import TradingClient
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import LimitOrderRequest

    numbers = range(1, orders + 1)
    _break(sim, {number: rf'"qty": ?{number}(\.0)?[,}}]' for number in numbers})

    def send(number: int) -> bool:
        client = TradingClient("k", "s", raw_data=True, url_override=sim.url)
        client._session.trust_env = False
        try:
            client.submit_order(
                LimitOrderRequest(
                    symbol="KO",
                    qty=number,
                    side=OrderSide.SELL,
                    time_in_force=TimeInForce.DAY,
                    limit_price=500,
                )
            )
        except Exception:
            return False
        return True

    with ThreadPoolExecutor(5 * CALLERS) as pool:
        believed = dict(zip(numbers, pool.map(send, numbers), strict=True))
    sim.delete("/sim/faults")
    at_broker = Counter(int(float(order["qty"])) for order in sim.get("/sim/state")["orders"])
    return Figures(
        orders=orders,
        duplicates=sum(count - 1 for count in at_broker.values()),
        believed_failed_that_exist=sum(not believed[number] for number in at_broker),
        believed_alive_that_do_not=sum(
            alive and number not in at_broker for number, alive in believed.items()
        ),
        undecided=0,
        seconds=0.0,
    )


def _break(sim: "SimulatorServer", bodies: dict[Any, str]) -> None:
    """One way of losing its answer for each order, in turn."""
    post = {"method": "POST", "path": "/v2/orders"}
    ways = itertools.cycle(WAYS)
    sim.post("/sim/faults", [{**post, **next(ways), "body": body} for body in bodies.values()])


def prepare(sim: "SimulatorServer") -> None:
    """Shares enough to sell, at a price that stands still."""
    sim.post("/sim/price", {"hold": True})
    sim.post("/sim/position", {"symbol": "KO", "qty": "5000000", "average_price": "60"})


def main(orders: int) -> None:
    import logging

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
    django.setup()
    logging.disable(logging.CRITICAL)
    from django.conf import settings
    from django.test.utils import setup_databases, teardown_databases

    from ordinis.accounts.setup import issue_token
    from tests.open_desk import let_all_pass
    from tests.simulator_server import SimulatorServer

    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with SimulatorServer(seed=7) as sim:
            prepare(sim)
            settings.BROKER_URL, settings.BROKER_TIMEOUT = sim.url, TIMEOUT
            issued, token = issue_token(strategy="lost", account="main")
            let_all_pass(issued.strategy.account)
            print(f"Ordinis           {through_ordinis(sim, token, orders)}")  # noqa: T201
        with SimulatorServer(seed=7) as sim:
            prepare(sim)
            print(f"alpaca-py alone   {through_alpaca_py_alone(sim, orders)}")  # noqa: T201
    finally:
        teardown_databases(databases, verbosity=0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
