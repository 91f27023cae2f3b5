"""Any life of any orders: submits, duplicates, fills, cancels, replacements, expiries, exits, lost
answers, deaths at any failpoint, reports shuffled and repeated. After every step DESIGN's
invariants hold; in the end every order is what the broker says, and so is the book.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orders import cancelling, dependents, resolver, statuses, sync, wake
from orders.errors import OrderError
from orders.lifecycle import Source
from orders.models import Order
from ordinis import failpoints
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.broker.parsing import parse_order
from ordinis.verify import violations
from positions.models import Position
from reconciliation.models import Break
from reconciliation.run import reconcile
from risk.figures import database_now
from tests.conftest import Api, quote
from tests.crashes.test_failpoints import FAILPOINTS
from tests.open_desk import let_all_pass
from tests.simulator_server import SimulatorServer

SYMBOLS = ("KO", "TSLA")
PRICES = {"KO": Decimal(60), "TSLA": Decimal(250)}
LOST = (
    {"kind": "drop_after"},
    {"kind": "drop_before"},
    {"kind": "status_after", "status": 504},
    {"kind": "truncated_after"},
    {"kind": "duplicate_id_after"},
    {"kind": "no_funds"},
)
# What the simulator's broker can do to an open order beside filling it.
BEFALLS = ("expired", "rejected", "done_for_day", "suspended", "canceled", "something_new")
_PENDING = ("pending_new", "accepted")
_numbers = count(1)


class Killed(BaseException):
    """The process died here: nothing that follows is done, and no open transaction counts."""


class Desk(RuleBasedStateMachine):
    """One account, one strategy, and the broker, which only moves when a rule moves it."""

    sim: SimulatorServer

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []

    @initialize()
    def open(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE accounts_brokeraccount CASCADE")
        self.sim.post("/sim/reset", {})
        self.sim.post("/sim/clock", {"hold": True})
        for symbol, price in PRICES.items():
            quote(self.sim, symbol, str(price))
        self.sim.post("/sim/position", {"symbol": "KO", "qty": "500", "average_price": "55"})
        self.account = BrokerAccount.objects.create(
            name="main", broker="simulator", mode="simulated"
        )
        strategy = Strategy.objects.create(account=self.account, name="any")
        let_all_pass(self.account)
        self.api = Api(ApiToken.issue(strategy, SCOPES)[1])
        reconcile(self.account)

    # --- what a strategy does -------------------------------------------------------------

    @rule(
        symbol=st.sampled_from(SYMBOLS),
        side=st.sampled_from(["buy", "buy", "sell"]),
        qty=st.integers(1, 30),
        distance=st.integers(-3, 3),
        exits=st.sampled_from(["", "", "take_profit", "stop_loss", "both"]),
        lost=st.sampled_from([None, None, None, *LOST]),
    )
    def submit(
        self, symbol: str, side: str, qty: int, distance: int, exits: str, lost: Any
    ) -> None:
        price = PRICES[symbol]
        body: dict[str, Any] = {
            "client_order_id": f"any-{next(_numbers)}",
            "symbol": symbol,
            "side": side,
            "qty": str(qty),
            "limit_price": str(price + distance),
        }
        up = 1 if side == "buy" else -1
        if exits in ("take_profit", "both"):
            body["take_profit"] = {"limit_price": str(price + 20 * up)}
        if exits in ("stop_loss", "both"):
            body["stop_loss"] = {"stop_price": str(price - 20 * up)}
        if lost:
            post = {"method": "POST", "path": "/v2/orders"}
            self.sim.post("/sim/faults", [{**post, **lost, "body": body["client_order_id"]}])
        self.bodies.append(body)
        self._post("/orders", body)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def send_the_same_again(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.bodies))
        before = Order.objects.filter(client_order_id=body["client_order_id"]).first()
        answer = self._post("/orders", body)
        if before is not None and answer is not None:
            assert answer.json()["id"] == str(before.pk)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def send_the_like(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.bodies))
        self._post("/orders", {**body, "client_order_id": f"any-{next(_numbers)}"})

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if order := self._draw(data, Order.objects.all()):
            self._post(f"/orders/{order.pk}/cancel", {})

    @rule(data=st.data(), qty=st.integers(1, 40), distance=st.integers(-3, 3))
    def replace(self, data: st.DataObject, qty: int, distance: int) -> None:
        if order := self._draw(data, self._open()):
            price = PRICES[order.symbol] + distance
            self._post(f"/orders/{order.pk}/replace", {"qty": str(qty), "limit_price": str(price)})

    @rule()
    def cancel_all(self) -> None:
        self._post("/orders/cancel-all", {"reason": "any"})

    # --- what the broker does ---------------------------------------------------------------

    @rule(data=st.data(), part=st.integers(1, 30))
    def fill(self, data: st.DataObject, part: int) -> None:
        if told := self._draw_there(data):
            left = Decimal(told["qty"]) - Decimal(told["filled_qty"])
            if told["status"] not in ("held", "pending_replace") and left > 0:
                self._control("/sim/fill", {"id": told["id"], "qty": str(min(left, part))})

    @rule(data=st.data(), status=st.sampled_from(BEFALLS))
    def befall(self, data: st.DataObject, status: str) -> None:
        told = self._draw_there(data)
        if told and not told["order_class"] and told["status"] != "pending_replace":
            self._control("/sim/order", {"id": told["id"], "status": status})

    @rule(data=st.data(), distance=st.integers(-3, 3))
    def replace_in_the_brokers_app(self, data: st.DataObject, distance: int) -> None:
        told = self._draw_there(data)
        if told and told["type"] == "limit" and not told["order_class"]:
            price = str(PRICES[told["symbol"]] + distance)
            self.sim.trading("PATCH", f"/v2/orders/{told['id']}", json={"limit_price": price})

    @rule(seconds=st.sampled_from([0.01, 1, 5]))
    def time_passes_there(self, seconds: float) -> None:
        self._control("/sim/clock", {"advance": seconds})

    # --- what Ordinis does by itself --------------------------------------------------------

    @rule()
    def report_is_on_its_way(self) -> None:
        self.reports += self.sim.get("/sim/state")["orders"]
        del self.reports[:-60]

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def some_report_arrives(self, data: st.DataObject) -> None:
        told = data.draw(st.sampled_from(self.reports))
        self._alive(lambda: sync.take_in(self.account, parse_order(told), Source.STREAM))

    @rule()
    def poll(self) -> None:
        self._alive(lambda: sync.poll(self.account))

    @rule()
    def resolve(self) -> None:
        _play_that_time_passes()
        self._alive(_resolve)

    @rule()
    def follow_up(self) -> None:
        self._alive(_follow_up)

    @rule()
    def reconcile(self) -> None:
        self._alive(lambda: reconcile(self.account))

    @rule(name=st.sampled_from(FAILPOINTS))
    def arm(self, name: str) -> None:
        """The next time it is reached the process dies there."""
        failpoints._name, failpoints._left = name, 1

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def invariants_hold(self) -> None:
        if not hasattr(self, "account"):
            return
        assert list(violations()) == []
        theirs = Counter(o["client_order_id"] for o in self.sim.get("/sim/state")["orders"])
        assert max(theirs.values(), default=0) <= 1

    def teardown(self) -> None:
        failpoints._name = ""
        if not hasattr(self, "account"):
            return
        self.sim.delete("/sim/faults")
        for _ in range(12):
            self._control("/sim/clock", {"advance": 2})
            _play_that_time_passes()
            _resolve()
            _follow_up()
            sync.poll(self.account)
        self._all_is_definite()
        book = {p.symbol: p.qty for p in Position.objects.exclude(qty=0)}
        state = self.sim.get("/sim/state")
        assert book == {p["symbol"]: Decimal(p["qty"]) for p in state["positions"]}
        assert not Break.objects.exists()
        refused = Order.objects.filter(rejection__message__contains="insufficient qty")
        assert not refused.exists()
        self.invariants_hold()

    def _all_is_definite(self) -> None:
        assert not Order.objects.filter(status__in=sorted(statuses.UNPROVED)).exists()
        known = {order.broker_order_id: order for order in Order.objects.all()}
        for told in self.sim.get("/sim/state")["orders"]:
            order = known.get(told["id"])
            assert order is not None, f"{told['client_order_id']} is not known"
            steps = list(order.history.values_list("to_status", "actor", "reason"))
            assert order.status == told["status"], steps
            assert order.filled_qty == Decimal(told["filled_qty"]), steps

    # --- how ----------------------------------------------------------------------------------

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answers: list[Any] = []
        self._alive(lambda: answers.append(self.api.post(path, body)))
        if not answers:
            return None
        assert answers[0].status_code < 500 or answers[0].status_code in (501, 503), answers[0]
        return answers[0]

    def _alive(self, work: Callable[[], object]) -> None:
        """Does it, unless it dies at the failpoint that is armed."""
        try:
            work()
        except Killed:
            failpoints._name = ""
            connection.close()

    def _control(self, path: str, body: Any) -> None:
        self.sim.post(path, body)
        # The broker's clock is held: what happens later must be seen to be later.
        self.sim.post("/sim/clock", {"advance": 0.001})

    def _open(self) -> Any:
        return Order.objects.exclude(status__in=sorted(statuses.CLOSED))

    def _draw(self, data: st.DataObject, rows: Any) -> Order | None:
        found = list(rows.order_by("created_at", "client_order_id"))
        return data.draw(st.sampled_from(found)) if found else None

    def _draw_there(self, data: st.DataObject) -> dict[str, Any] | None:
        """An open order there; a replacement that the venue has not confirmed is none yet."""
        told = self.sim.trading("GET", "/v2/orders?limit=500").json()
        standing = [each for each in told if not (each["replaces"] and each["status"] in _PENDING)]
        return data.draw(st.sampled_from(standing)) if standing else None


def _resolve() -> None:
    for order in resolver.due(database_now()):
        resolver.resolve(order)
    for order in resolver.watched(database_now()):
        resolver.watch(order)


def _follow_up() -> None:
    for order_id in dependents.due(database_now()):
        dependents.advance(order_id)
    for order_id in cancelling.due(database_now()):
        try:
            cancelling.pursue(order_id)
        except OrderError:
            continue


def _play_that_time_passes() -> None:
    """Every wait of ours is over: a sender that died is abandoned, three misses took long."""
    long_ago = database_now() - timedelta(seconds=30)
    Order.objects.filter(status__in=sorted(statuses.UNPROVED)).update(submitted_at=long_ago)
    Order.objects.exclude(first_missed_at=None).update(first_missed_at=long_ago)
    Order.objects.exclude(cancel_sent_at=None).update(cancel_sent_at=long_ago)
    Order.objects.exclude(retry_at=None).update(retry_at=long_ago)


def _die() -> None:
    raise Killed


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runs", [30, pytest.param(1000, marks=pytest.mark.long)])
def test_whatever_happens_to_orders_the_invariants_hold(
    sim: SimulatorServer, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    settings.FIGURES_MAX_AGE = 0  # so that a run does not depend on how fast the machine is
    monkeypatch.setattr(failpoints, "_end", _die)
    monkeypatch.setattr(failpoints, "_name", "")
    monkeypatch.setattr(wake, "_begin", lambda function, order_id: None)  # the jobs do it
    monkeypatch.setattr("orders.cancel_all._LONGEST", 0.0)  # nobody moves the broker's clock
    Desk.sim = sim
    run_state_machine_as_test(Desk, settings=_profile(runs))


def _profile(runs: int) -> settings:
    return settings(
        max_examples=runs,
        stateful_step_count=50,
        deadline=None,
        derandomize=runs < 1000,
        # Shrinking runs for many minutes; the steps of a run read well enough as they are.
        phases=(Phase.explicit, Phase.generate),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
