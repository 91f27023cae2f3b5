"""`kill -9` at each failpoint, the first and the second time it is reached, while a desk trades:
after the restart nothing is lost, nothing is there twice, and the books agree."""

import re
import signal
import time
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import LazySettings

from orders import dependents, jobs, resolver, statuses
from orders.models import Order
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from positions.models import Position
from reconciliation.models import Break
from reconciliation.run import reconcile
from risk.figures import database_now
from tests import other_process
from tests.conftest import hold, quote
from tests.open_desk import let_all_pass
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)

_PROJECT = Path(__file__).resolve().parent.parent.parent
_SOURCES = ("orders", "ordinis", "positions", "reconciliation", "risk")
# Acts of people, killed in tests/reconciliation.
_WITH_TESTS_OF_THEIR_OWN = ("adoption.", "rebuild.", "trade.")
FAILPOINTS = sorted(
    name
    for folder in _SOURCES
    for source in (_PROJECT / folder).rglob("*.py")
    for name in re.findall(r'\bfailpoint\("([a-z_.]+)"\)', source.read_text())
    if not name.startswith(_WITH_TESTS_OF_THEIR_OWN)
)
# The order's own path, from the request to its end.
_SUBMIT_PATH = re.compile(r"submit|send|resend|observe|resolver")
_SAMPLE = ("send.committed", "send.answered", "observe.booked", "dependents.committed")


def test_every_failpoint_has_a_name_of_its_own_and_there_are_enough() -> None:
    assert len(set(FAILPOINTS)) == len(FAILPOINTS) >= 25
    assert sum(bool(_SUBMIT_PATH.match(name)) for name in FAILPOINTS) >= 12


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "failpoint",
    [
        pytest.param(
            f"{name}:{nth}",
            marks=[]
            if (name in _SAMPLE and nth == 1 + _SAMPLE.index(name) % 2)
            else [pytest.mark.long],
        )
        for name in FAILPOINTS
        for nth in (1, 2)
    ],
)
def test_a_desk_killed_there_comes_back_with_nothing_lost_and_nothing_twice(
    sim: SimulatorServer,
    account: BrokerAccount,
    strategy: Strategy,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
    failpoint: str,
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    monkeypatch.setattr(resolver, "_OVER", timedelta(seconds=0.3))
    monkeypatch.setattr(dependents, "_AT_LEAST", timedelta(seconds=0.1))
    hold(sim, "OKE", "39", "70")
    for symbol, price in (
        ("KO", "61"),
        ("TSLA", "250"),
        ("XOM", "110"),
        ("JPM", "210"),
        ("AAPL", "230"),
    ):
        quote(sim, symbol, price)
    let_all_pass(account)
    reconcile(account)
    _, token = ApiToken.issue(strategy, SCOPES)

    desk = other_process.start(
        "tests.crashes.desk", token, broker=sim.url, ORDINIS_FAILPOINT=failpoint
    )
    try:
        told, _ = desk.communicate(timeout=120)
    finally:
        desk.kill()
    assert desk.returncode == -signal.SIGKILL, f"never reached; it said:\n{told}"

    sim.delete("/sim/faults")
    _forget_time()
    deadline = time.monotonic() + 30
    while unsettled := _unsettled(sim):
        assert time.monotonic() < deadline, unsettled
        _goes_on(account)

    ours = {order.client_order_id: order for order in Order.objects.all()}
    for line in told.splitlines():
        code, _, client_order_id = [*line.split(), "-", "-"][:3]
        if code in ("200", "201", "202") and client_order_id != "-":
            assert client_order_id in ours, "an order that was answered is lost"
    theirs = Counter(order["client_order_id"] for order in sim.get("/sim/state")["orders"])
    assert max(theirs.values(), default=0) <= 1
    assert list(violations()) == []
    # What a person has moved by hand waits for a decision; all else agrees.
    book = {p.symbol: p.qty for p in Position.objects.exclude(qty=0)}
    broker = {p["symbol"]: Decimal(p["qty"]) for p in sim.get("/sim/state")["positions"]}
    differing = {s for s in book.keys() | broker.keys() if book.get(s) != broker.get(s)}
    assert differing <= {"OKE"}
    assert not Break.objects.exclude(symbol="OKE").exists()


def _forget_time() -> None:
    """Plays that the timeouts of the process that died have passed."""
    long_ago = database_now() - timedelta(seconds=20)
    Order.objects.filter(status=statuses.SUBMITTING).update(submitted_at=long_ago)
    Order.objects.exclude(cancel_sent_at=None).update(cancel_sent_at=long_ago)


def _goes_on(account: BrokerAccount) -> None:
    """What clock and worker do after the restart."""
    jobs.resolve()
    jobs.pursue_cancels()
    jobs.follow_up()
    jobs.poll()
    reconcile(account)


def _unsettled(sim: SimulatorServer) -> list[str]:
    """What is unproved, wanted and not done, or not as the broker says."""
    found = []
    orders = list(Order.objects.select_related("parent"))
    for order in orders:
        name = f"{order.client_order_id} ({order.status})"
        if order.status in statuses.UNPROVED:
            found.append(f"{name} is unproved")
        if order.is_open and order.cancel_requested_at:
            found.append(f"{name} is not cancelled")
        if order.status == statuses.WAITING and order.parent and order.parent.filled_qty:
            found.append(f"{name} waits")
    known = {order.broker_order_id: order for order in orders}
    for told in sim.get("/sim/state")["orders"]:
        known_as = known.get(told["id"])
        if known_as is None:
            found.append(f"{told['client_order_id']} is not known")
        elif (known_as.status, known_as.filled_qty) != (
            told["status"],
            Decimal(told["filled_qty"]),
        ):
            steps = known_as.history.values_list("to_status", "actor", "reason")
            found.append(f"{known_as} is not {told['status']}: {list(steps)}")
    return found
