"""A bad day: every fault that the simulator knows, in a random mixture, while strategies trade.

Afterwards every order is definite and what the broker says it is, none is doubled or lost, and the
book is the broker's, but for trades that the broker itself took back.
"""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.db import connection

from orders import jobs, statuses
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.models import Position
from reconciliation.run import reconcile
from tests.conftest import Api
from tests.listening import Listening
from tests.open_desk import let_all_pass
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

SYMBOLS = ("AAPL", "MSFT", "KO", "XOM", "JPM", "OKE", "ET", "TSLA")
CALLERS = 4
ORDERS_EACH = 40


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_a_bad_day_every_order_is_definite_and_the_book_is_the_brokers(
    sim: SimulatorServer, account: BrokerAccount, api: Api, settings: LazySettings, seed: int
) -> None:
    settings.BROKER_TIMEOUT = 1
    let_all_pass(account)
    reconcile(account)
    sim.post("/sim/price", {"hold": False})
    # On the first day the broker tells its request limit, so that a lying 429 stops everything for
    # the rest of a minute; on the others it does not, and all goes faster.
    limit = {"rate_limit": 0} if seed > 1 else {}
    sim.post("/sim/options", {"tick_seconds": 0.05, **limit})
    ended = threading.Event()
    keeper = threading.Thread(target=_keep_going, args=(account, ended))

    with Listening(account):
        keeper.start()
        bad_day = {"seed": seed, "minutes": 10, "intensity": 0.15, "timeout": 1}
        sim.post("/sim/bad-day", bad_day)
        with ThreadPoolExecutor(CALLERS) as pool:
            seeds = [100 * seed + caller for caller in range(CALLERS)]
            answers = sum(pool.map(lambda each: _trade(api, each), seeds), Counter[int]())
        done = sim.get("/sim/bad-day")
        sim.delete("/sim/bad-day")
        sim.delete("/sim/faults")
        sim.post("/sim/price", {"hold": True})
        until(lambda: _all_definite(sim), seconds=180, every=1)
        ended.set()
        keeper.join(60)

    at_broker = sim.get("/sim/state")["orders"]
    ours = {order.client_order_id: order for order in Order.objects.all()}
    theirs = Counter(order["client_order_id"] for order in at_broker)
    taken_back = _taken_back(sim)
    filled = sum(order["status"] == "filled" for order in at_broker)
    print(  # noqa: T201 the figures of the day
        f"\nseed {seed}: answers {dict(answers)}, {len(at_broker)} orders at the broker, "
        f"{filled} filled, faults {done['faults']}, "
        f"trades taken back in {sorted(taken_back)}"
    )
    assert max(theirs.values()) == 1
    assert set(theirs) <= set(ours)
    for client_order_id, order in ours.items():
        if client_order_id not in theirs:
            assert order.status in (statuses.DENIED, statuses.FAILED, statuses.REJECTED)
    assert list(violations()) == []
    book = {p.symbol: p.qty for p in Position.objects.exclude(qty=0)}
    broker = {p["symbol"]: Decimal(p["qty"]) for p in sim.get("/sim/state")["positions"]}
    differing = {s for s in book.keys() | broker.keys() if book.get(s) != broker.get(s)}
    assert differing <= taken_back


def _trade(api: Api, seed: int) -> Counter[int]:
    """Orders of one caller, each sent again with the same id until it has an answer that counts."""
    chance, answers = random.Random(seed), Counter[int]()
    for _ in range(ORDERS_EACH):
        body = {
            "client_order_id": f"bad-{uuid4()}",
            "symbol": chance.choice(SYMBOLS),
            "side": chance.choice(["buy", "buy", "sell"]),
            "qty": str(chance.randint(1, 9)),
            "limit_price": chance.choice(["10.00", "900.00"]),
        }
        try:
            for _ in range(400):
                code = api.post("/orders", body).status_code
                if code != 503:
                    break
                threading.Event().wait(0.25)  # as a strategy does: Retry-After, the same body
            answers[code] += 1
        finally:
            connection.close()
    return answers


def _keep_going(account: BrokerAccount, ended: threading.Event) -> None:
    """What clock and worker do, faster."""
    while not ended.wait(0.3):
        jobs.resolve()
        jobs.watch()
        jobs.poll()
        reconcile(account)
    connection.close()


def _all_definite(sim: SimulatorServer) -> bool:
    """Nothing is unproved, and every order has the broker's status and shares."""
    ours = {order.client_order_id: order for order in Order.objects.all()}
    if any(order.status in statuses.UNPROVED for order in ours.values()):
        return False
    for told in sim.get("/sim/state")["orders"]:
        order = ours[told["client_order_id"]]
        if order.status != told["status"] or order.filled_qty < Decimal(told["filled_qty"]):
            return False
    return True


def _taken_back(sim: SimulatorServer) -> set[str]:
    """Symbols of trades that the broker busted or corrected after they were reported."""
    bodies = [row[-1] for row in sim.get("/sim/snapshot")["events"]]
    return {
        body["order"]["symbol"]
        for body in bodies
        if body.get("event") in ("trade_bust", "trade_correct")
    }
