"""Random days at the simulator: hands, our orders, splits, fees and answers that lie or fail.

Whatever happened, once answers are right again and what is proposed was approved, a look finds
nothing, and the one after it as little; no order ever lost a fill; and what was corrected without a
person was true when it was.
"""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db.models import F

from orders import jobs as order_jobs
from orders import statuses
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import LedgerEntry, Position
from reconciliation import jobs
from reconciliation.corrections import NotDecided, decide
from reconciliation.models import Break, Correction, Kind
from reconciliation.run import reconcile
from risk import trading
from risk.states import ACTIVE
from tests.conftest import Api, hold, quote
from tests.open_desk import let_all_pass
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

HELD = ("AAPL", "CAT", "JPM", "KO", "MSFT", "OKE", "PEP", "XOM")
OURS = ("KO", "PEP")  # traded by a strategy; the others by hands alone
# Left alone: of few positions most would differ at once, which is another story.
CALM = ("AMD", "AMZN", "BA", "BAC", "CRM", "DIS", "GE", "HD", "INTC", "JNJ", "META", "NEE")
READS = ("/v2/positions", "/v2/orders", "/v2/account", "/v2/account/activities/FILL")
# Of what is read, and of the answers to our own orders.
LIES: tuple[dict[str, Any], ...] = (
    {"kind": "list_omit", "path": "/v2/positions"},
    {"kind": "list_empty", "path": "/v2/positions"},
    {"kind": "list_omit", "path": "/v2/orders"},
    {"kind": "list_empty", "path": "/v2/orders"},
    {"kind": "list_lag", "path": "/v2/orders", "seconds": 2},
    {"kind": "lookup_404"},
    {"kind": "drop_after", "method": "POST", "path": "/v2/orders", "body": '"day-'},
    {"kind": "drop_before", "method": "POST", "path": "/v2/orders", "body": '"day-'},
    *(
        {"kind": kind, "method": "GET", "path": path}
        for kind in ("status_before", "truncated_after", "drop_after", "empty_after", "html_after")
        for path in READS
    ),
)


class Day:
    """What may happen, one step after the other."""

    def __init__(self, sim: SimulatorServer, account: BrokerAccount, api: Api, seed: int) -> None:
        self.sim, self.account, self.api, self.random = sim, account, api, Random(seed)
        self.approver = User.objects.create_superuser("approver")
        self.filled: dict[Any, Decimal] = {}
        self.sent = 0
        self._steps: list[tuple[Callable[[], None], int]] = [
            (self.trades_by_hand, 4),
            (self.transfers, 2),
            (self.orders, 4),
            (self.fills, 3),
            (self.cancels, 1),
            (self.orders_in_the_app, 1),
            (self.splits, 1),
            (self.pays, 1),
            (self.lies, 4),
            (self.approves, 2),
            (self.looks, 6),
        ]

    def step(self) -> None:
        what, weights = zip(*self._steps, strict=True)
        (act,) = self.random.choices(what, weights)
        act()
        self.no_fill_was_lost()

    # --- at the broker --------------------------------------------------------------------------

    def trades_by_hand(self) -> None:
        side, qty = self.random.choice(["buy", "sell"]), str(self.random.randint(1, 60))
        body = {"symbol": self.random.choice((*HELD, "CVX")), "side": side, "qty": qty}
        self._may_be_refused("/sim/trade", body)

    def transfers(self) -> None:
        symbol = self.random.choice((*HELD, "UNH"))
        qty = self.random.choice(["0", "1.000000001", "-5", "37", "120"])
        self._may_be_refused(
            "/sim/position", {"symbol": symbol, "qty": qty, "average_price": "51.25"}
        )

    def fills(self) -> None:
        resting = [o for o in self.sim.get("/sim/state")["orders"] if o["status"] == "new"]
        if resting:
            order = self.random.choice(resting)
            qty = self.random.choice([order["qty"], "1"])
            self._may_be_refused("/sim/fill", {"id": order["id"], "qty": qty, "price": "50"})

    def orders_in_the_app(self) -> None:
        body = {"symbol": self.random.choice(HELD), "side": "buy", "qty": "2", "type": "limit"}
        terms = {"time_in_force": "day", "limit_price": "30"}
        self.sim.trading("POST", "/v2/orders", json={**body, **terms})

    def splits(self) -> None:
        new, old = self.random.choice([(2, 1), (3, 2), (1, 10)])
        symbol = self.random.choice([symbol for symbol in HELD if symbol not in OURS])
        self.sim.post("/sim/split", {"symbol": symbol, "new_rate": new, "old_rate": old})

    def pays(self) -> None:
        kind, amount = self.random.choice([("FEE", "-3.21"), ("CSD", "1000"), ("INT", "0.77")])
        self.sim.post("/sim/activity", {"activity_type": kind, "net_amount": amount})

    def lies(self) -> None:
        count = self.random.choice([1, 1, 2, 3])
        self.sim.post("/sim/faults", [{**self.random.choice(LIES), "count": count}])

    def _may_be_refused(self, path: str, body: Any) -> None:
        try:
            self.sim.post(path, body)
        except AssertionError as refused:
            if " 403 " not in str(refused) and " 422 " not in str(refused):
                raise

    # --- here -----------------------------------------------------------------------------------

    def orders(self) -> None:
        self.sent += 1
        body = {
            "client_order_id": f"day-{self.sent}",
            "symbol": self.random.choice(OURS),
            "side": self.random.choice(["buy", "buy", "sell"]),
            "qty": str(self.random.randint(1, 9)),
            "limit_price": self.random.choice(["50", "40", "60"]),
        }
        self.api.post("/orders", body)

    def cancels(self) -> None:
        order = Order.objects.exclude(status__in=sorted(statuses.CLOSED)).first()
        if order is not None:
            self.api.post(f"/orders/{order.pk}/cancel")

    def looks(self) -> None:
        before = set(Correction.objects.filter(automatic=True).values_list("pk", flat=True))
        looks: list[Callable[[], object]] = [order_jobs.poll, jobs.after_orders, self.reconciles]
        self.random.choice(looks)()
        for made in Correction.objects.filter(automatic=True).exclude(pk__in=before):
            symbol = made.subject.symbol
            if symbol not in OURS:
                assert made.broker == self.truth().get(symbol, 0), f"{made} was not true"

    def reconciles(self) -> None:
        reconcile(self.account)

    def approves(self) -> None:
        for correction in Correction.objects.filter(status="proposed"):
            try:
                decide(correction.pk, "approve", user=self.approver, comment="as it is there")
            except NotDecided:
                continue
            symbol = correction.subject.symbol
            if symbol and symbol not in OURS:
                assert Position.objects.get(symbol=symbol).qty == self.truth().get(symbol, 0)

    # --- what must hold -------------------------------------------------------------------------

    def truth(self) -> dict[str, Decimal]:
        state = self.sim.get("/sim/state")
        return {each["symbol"]: Decimal(each["qty"]) for each in state["positions"]}

    def no_fill_was_lost(self) -> None:
        now = dict(Order.objects.values_list("pk", "filled_qty"))
        for key, filled in self.filled.items():
            assert now[key] >= filled, f"order {key} had filled {filled}, now {now[key]}"
        self.filled = now

    def ends(self) -> None:
        """The faults stop, what rests is cancelled, and a person goes through the queue."""
        self.sim.delete("/sim/faults")
        until(self._all_have_ended, seconds=20)
        for _ in range(8):
            # Plays the pause in which nothing of any order moved.
            Order.objects.update(updated_at=F("updated_at") - timedelta(minutes=1))
            if not (
                reconcile(self.account).differences
                or Correction.objects.filter(status="proposed").exists()
            ):
                break
            self.approves()
        self.no_fill_was_lost()

    def _all_have_ended(self) -> bool:
        """One that was lost on its way may be sent once more, even now."""
        for order in self.sim.get("/sim/state")["orders"]:
            if order["status"] in ("new", "accepted", "pending_new", "partially_filled"):
                self._may_be_refused("/sim/cancel", {"id": order["id"]})
        order_jobs.resolve()
        order_jobs.poll()
        return not Order.objects.exclude(status__in=sorted(statuses.CLOSED)).exists()


@pytest.mark.parametrize("mode", ["manual", "automatic"])
@pytest.mark.parametrize(
    ("seed", "steps"),
    [
        *((seed, 30) for seed in (1, 2)),
        *(
            pytest.param(seed, 120, marks=[pytest.mark.long, pytest.mark.timeout(300)])
            for seed in range(10, 22)
        ),
    ],
)
def test_after_whatever_happened_approving_what_is_proposed_leaves_nothing_to_find(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    settings: LazySettings,
    mode: str,
    seed: int,
    steps: int,
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    settings.BROKER_TIMEOUT = 1.0
    for symbol in HELD:
        quote(sim, symbol, "50")
        hold(sim, symbol, "40", "50")
    for symbol in CALM:
        hold(sim, symbol, "1", "50")
    let_all_pass(account)
    call_command(
        "limits",
        *(f"reconcile_mode={mode}", "auto_correct_max_value=1000000", "auto_correct_max_qty=1000"),
        *("duplicate_guard=no", "allow_short=yes"),
        reason="a random day",
    )
    reconcile(account)
    day = Day(sim, account, api, seed)

    for _ in range(steps):
        day.step()
        if trading.current(account.pk).state != ACTIVE:
            trading.set_state(account.pk, ACTIVE, reason="looked at it", actor="test")
    day.ends()

    first, second = reconcile(account), reconcile(account)
    for report in (first, second):
        assert (report.complete, report.differences) == (True, [])
    assert not Break.objects.filter(ended_at=None).exists()
    assert not Alert.objects.filter(code__startswith="break_", ended_at=None).exists()
    assert dict(Position.objects.exclude(qty=0).values_list("symbol", "qty")) == day.truth()
    assert cash_of(account.pk) == Decimal(sim.get("/sim/state")["account"]["cash"])
    assert list(violations()) == []
    entries = LedgerEntry.objects.filter(cause__startswith="correction/").count()
    applied = Correction.objects.filter(status="applied").exclude(kind=Correction.Kind.CASH)
    assert entries == applied.count()
    assert Break.objects.exclude(kind=Kind.MASS).exists(), "the day was too quiet to show anything"
