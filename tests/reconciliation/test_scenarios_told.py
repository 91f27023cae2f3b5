"""Scenarios from the broker to the book, over HTTP: what a person, a market or a fault does
there, what is told here, and that the books agree in the end."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.models import F, QuerySet

from orders import jobs as order_jobs
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker import alpaca
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import looks, queue
from reconciliation.corrections import NotDecided, decide
from reconciliation.models import Break, Correction, Suspect
from reconciliation.run import reconcile
from risk import trading
from tests.conftest import Api, hold, quote
from tests.listening import Listening, listeners
from tests.reconciliation.conftest import make_break, waiting
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
Sim = SimulatorServer
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer) -> Iterator[None]:
    yield
    assert list(violations()) == []


@pytest.fixture
def six(sim: SimulatorServer, account: BrokerAccount, settings: LazySettings) -> BrokerAccount:
    """A book that was taken over with 10 of each of six."""
    settings.SECOND_LOOK_SECONDS = 0
    for symbol in ("AAPL", "JPM", "KO", "MSFT", "OKE", "XOM"):
        hold(sim, symbol, "10", "50")
    reconcile(account)
    return account


def approve(user: User) -> Correction:
    return decide(waiting().pk, "approve", user=user, comment="as it was")


def nothing_is_left(account: BrokerAccount) -> None:
    """One more look finds nothing, and shares and cash are the broker's."""
    report = reconcile(account)
    assert (report.complete, report.differences) == (True, [])
    assert not Break.objects.filter(ended_at=None).exists()
    assert not Alert.objects.filter(code__startswith="break_", ended_at=None).exists()


def in_app(sim: SimulatorServer, **changes: str) -> dict[str, Any]:
    """A buy of 10 TSLA at $200 that was placed in the broker's own app, and rests."""
    body = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": "10",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "200",
        **changes,
    }
    placed: dict[str, Any] = sim.trading("POST", "/v2/orders", json=body).json()
    until(lambda: at_broker(sim, placed["id"])["status"] == "new")
    return placed


def at_broker(sim: SimulatorServer, order_id: str) -> dict[str, Any]:
    (order,) = (o for o in sim.get("/sim/state")["orders"] if o["id"] == order_id)
    return dict(order)


def position(symbol: str) -> Position:
    return Position.objects.get(symbol=symbol)


# --- every kind is told, and the telling ends -----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What happens at the broker, how it is undone, and what is told of it meanwhile."""

    name: str
    kind: str
    severity: str
    subject: str
    provoke: Callable[[Sim], object]
    undo: Callable[[Sim], object]
    proposed: str = "position"


def _put(symbol: str, qty: str, price: str = "50") -> Callable[[Sim], object]:
    return lambda sim: hold(sim, symbol, qty, price)


TOLD = [
    Told(
        name="a position that is gone there",
        kind="zombie",
        severity="warning",
        subject="KO",
        provoke=_put("KO", "0"),
        undo=_put("KO", "10"),
    ),
    Told(
        name="a position that is new there",
        kind="orphan",
        severity="critical",
        subject="PEP",
        provoke=_put("PEP", "1"),
        undo=_put("PEP", "0"),
    ),
    Told(
        name="a short that is new there",
        kind="orphan",
        severity="critical",
        subject="PEP",
        provoke=_put("PEP", "-1"),
        undo=_put("PEP", "0"),
    ),
    Told(
        name="more shares there",
        kind="quantity",
        severity="warning",
        subject="KO",
        provoke=_put("KO", "15"),
        undo=_put("KO", "10"),
    ),
    Told(
        name="the other side there",
        kind="side",
        severity="critical",
        subject="KO",
        provoke=_put("KO", "-1"),
        undo=_put("KO", "10"),
    ),
    Told(
        name="another average there",
        kind="average_price",
        severity="warning",
        subject="KO",
        provoke=_put("KO", "10", "80"),
        undo=_put("KO", "10"),
        proposed="average_price",
    ),
    Told(
        name="twice the shares at half the cost there",
        kind="split",
        severity="warning",
        subject="KO",
        provoke=_put("KO", "20", "25"),
        undo=_put("KO", "10"),
        proposed="split",
    ),
    Told(
        name="cash that went there",
        kind="cash",
        severity="critical",
        subject="account/cash",
        provoke=lambda sim: sim.post("/sim/account", {"cash": "990000"}),
        undo=lambda sim: sim.post("/sim/account", {"cash": "1000000"}),
        proposed="cash",
    ),
    Told(
        name="buying power pinned to $200",
        kind="buying_power",
        severity="critical",
        subject="account/buying_power",
        provoke=lambda sim: sim.post("/sim/account", {"buying_power": "200"}),
        undo=lambda sim: sim.post("/sim/account", {"buying_power": None}),
        proposed="",
    ),
    Told(
        name="an empty list of positions again and again",
        kind="mass",
        severity="critical",
        subject="account/positions",
        provoke=lambda sim: sim.post(
            "/sim/faults", [{"kind": "list_empty", "path": "/v2/positions", "count": None}]
        ),
        undo=lambda sim: sim.delete("/sim/faults"),
        proposed="",
    ),
]


@pytest.mark.parametrize("told", [pytest.param(each, id=each.name) for each in TOLD])
def test_it_is_a_break_with_an_alert_and_a_proposal_until_it_heals(
    sim: Sim, six: BrokerAccount, told: Told
) -> None:
    told.provoke(sim)
    row = make_break(six)

    assert (row.kind, row.severity, row.quiet) == (told.kind, told.severity, True)
    alert = Alert.objects.get(code__startswith="break_")
    assert (alert.code, alert.severity) == (f"break_{told.kind}", told.severity)
    assert (alert.subject, alert.ended_at) == (told.subject, None)
    assert list(Correction.objects.values_list("kind", "status")) == (
        [(told.proposed, "proposed")] if told.proposed else []
    )
    assert row.status == ("correcting" if told.proposed else "open")

    told.undo(sim)
    nothing_is_left(six)

    row.refresh_from_db()
    assert row.status == "healed"
    assert [event.what for event in row.events.all()] == (
        ["opened", "proposed", "healed"] if told.proposed else ["opened", "healed"]
    )
    assert not Correction.objects.filter(status="proposed").exists()
    assert not LedgerEntry.objects.exclude(kind="opening").exists()


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(each, id=each.name)
        for each in TOLD
        if each.kind not in ("buying_power", "mass")
    ],
)
def test_what_was_approved_leaves_nothing_to_find(
    sim: Sim, six: BrokerAccount, approver: User, told: Told
) -> None:
    told.provoke(sim)
    make_break(six)

    approve(approver)

    nothing_is_left(six)
    assert Break.objects.get().status == "resolved"
    book = {p.symbol: (p.qty, p.average_price) for p in Position.objects.exclude(qty=0)}
    broker = {
        p["symbol"]: (Decimal(p["qty"]), Decimal(p["avg_entry_price"]))
        for p in sim.trading("GET", "/v2/positions").json()
    }
    assert book == broker
    assert cash_of(six.pk) == Decimal(sim.get("/sim/state")["account"]["cash"])


# --- trades and orders past Ordinis ---------------------------------------------------------------


def test_a_sale_in_the_brokers_app_is_explained_and_booked_at_its_price_and_profit(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "KO", "65")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "30"})

    row = make_break(book)
    assert row.explanation is not None
    assert (row.kind, row.explanation["code"]) == ("quantity", "external_trades")
    assert (row.explanation["qty"], row.explanation["price"]) == ("-30", "65")
    approve(approver)

    entry = LedgerEntry.objects.get(kind="correction")
    assert (entry.qty, entry.price, entry.realized_profit) == (-30, 65, 150)
    assert (position("KO").qty, position("KO").realized_profit) == (70, 150)
    assert CashEntry.objects.get(kind="external_trade").amount == 1950
    nothing_is_left(book)


def test_long_to_short_through_zero_within_one_look_is_a_side_and_ends_as_a_short(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "KO", "65")
    for qty in ("100", "50"):
        sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": qty})

    row = make_break(book)
    assert (row.kind, row.local, row.broker, row.severity) == ("side", 100, -50, "critical")
    approve(approver)

    assert (position("KO").qty, position("KO").average_price) == (-50, 65)
    assert position("KO").realized_profit == 500
    nothing_is_left(book)


def test_a_short_covered_in_the_brokers_app_is_a_zombie_closed_externally(
    sim: Sim, account: BrokerAccount, settings: LazySettings, approver: User
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    quote(sim, "KO", "60")
    hold(sim, "KO", "-20", "60")
    reconcile(account)
    quote(sim, "KO", "55")
    sim.post("/sim/close", {"symbol": "KO"})

    row = make_break(account)
    assert (row.kind, row.local, row.broker) == ("zombie", -20, 0)
    approve(approver)

    assert (position("KO").closed_reason, position("KO").realized_profit) == (
        "closed_externally",
        100,
    )
    nothing_is_left(account)


def test_an_order_placed_in_the_brokers_app_is_told_while_it_is_open_and_explains_its_fill(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    placed = in_app(sim)

    row = make_break(book)
    assert (row.kind, row.subject, row.broker) == ("order_external", f"order/{placed['id']}", 10)
    assert Alert.objects.get(code="break_order_external").ended_at is None
    assert not Correction.objects.exists()

    sim.post("/sim/fill", {"id": placed["id"], "price": "199"})
    for _ in range(2):
        reconcile(book)
    row.refresh_from_db()
    assert row.status == "healed"
    filled = Break.objects.get(ended_at=None)
    assert filled.explanation is not None
    assert (filled.kind, filled.explanation["orders"]) == ("orphan", [placed["id"]])
    approve(approver)

    assert (position("TSLA").qty, position("TSLA").average_price) == (10, 199)
    nothing_is_left(book)


def test_an_order_placed_and_cancelled_in_the_brokers_app_leaves_nothing(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    placed = in_app(sim)
    make_break(book)

    sim.post("/sim/cancel", {"id": placed["id"]})
    until(lambda: at_broker(sim, placed["id"])["status"] == "canceled")

    nothing_is_left(book)


def test_an_order_of_ours_replaced_in_the_brokers_app_stays_ours_under_its_new_id(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    resting = _rests(sim, api, order)

    path = f"/v2/orders/{resting.broker_order_id}"
    assert sim.trading("PATCH", path, json={"limit_price": "41"}).status_code == 200
    until(lambda: at_broker(sim, resting.broker_order_id or "")["status"] == "replaced")
    for _ in range(3):
        nothing_is_left(book)

    resting.refresh_from_db()
    successor = Order.objects.get(replaces=resting)
    assert (resting.status, successor.limit_price) == ("replaced", 41)
    assert not Break.objects.exists()


def test_an_order_canceled_with_fills_is_booked_from_the_brokers_fills(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    resting = _rests(sim, api, order)
    sim.post("/sim/fill", {"id": resting.broker_order_id, "qty": "4", "price": "40"})
    sim.post("/sim/cancel", {"id": resting.broker_order_id})
    until(lambda: at_broker(sim, resting.broker_order_id or "")["status"] == "canceled")

    nothing_is_left(book)
    sim.post("/sim/fill", {"id": resting.broker_order_id, "qty": "2", "price": "40", "late": True})
    nothing_is_left(book)

    resting.refresh_from_db()
    assert (resting.status, resting.filled_qty) == ("canceled", 6)
    assert position("KO").qty == 106
    assert not Break.objects.exists()


def _rests(sim: Sim, api: Api, order: MakeOrder, **changes: str) -> Order:
    """A buy of 10 KO at $40, far below the market."""
    quote(sim, "KO", "60")
    body = {"symbol": "KO", "qty": "10", "limit_price": "40", **changes}
    answer = api.post("/orders", order(reference_price=None, **body))
    assert answer.status_code == 201, answer.json()
    placed = Order.objects.get(pk=answer.json()["id"])
    until(lambda: at_broker(sim, placed.broker_order_id or "")["status"] == "new")
    return placed


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "old", "held", "average", "qty", "cost"),
    [
        ("2", "1", "100", "60", "200", "30"),
        ("3", "2", "100", "60", "150", "40"),
        ("1", "10", "100", "60", "10", "600"),
        ("2", "1", "-100", "60", "-200", "30"),
    ],
)
def test_a_split_is_recognised_named_and_booked_as_one_without_a_profit(
    sim: Sim,
    book: BrokerAccount,
    approver: User,
    new: str,
    old: str,
    held: str,
    average: str,
    qty: str,
    cost: str,
) -> None:
    if held.startswith("-"):
        for qty_sold in ("100", held[1:]):
            trade = {"symbol": "KO", "side": "sell", "qty": qty_sold, "price": average}
            sim.post("/sim/trade", trade)
        make_break(book)
        approve(approver)
    before = position("KO").realized_profit
    sim.post("/sim/split", {"symbol": "KO", "new_rate": new, "old_rate": old})

    row = make_break(book)
    assert row.explanation == {"code": "split", "ratio": f"{new}:{old}", "told": True}
    assert (row.kind, row.severity) == ("split", "warning")
    approve(approver)

    entry = LedgerEntry.objects.get(kind="split")
    assert (entry.qty, entry.realized_profit) == (Decimal(qty) - Decimal(held), 0)
    ko = position("KO")
    assert (ko.qty, ko.average_price) == (Decimal(qty), Decimal(cost))
    assert ko.realized_profit == before
    nothing_is_left(book)


def test_a_reverse_split_with_the_fraction_paid_out_is_one_and_its_money_is_booked(
    sim: Sim, account: BrokerAccount, settings: LazySettings, approver: User
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "KO", "105", "6")
    reconcile(account)
    sim.post("/sim/split", {"symbol": "KO", "new_rate": "1", "old_rate": "10"})
    hold(sim, "KO", "10", "60")
    sim.post("/sim/activity", {"activity_type": "REORG", "net_amount": "30", "symbol": "KO"})

    row = make_break(account)
    assert row.explanation == {"code": "split", "ratio": "1:10", "told": True}
    approve(approver)

    assert (position("KO").qty, position("KO").average_price) == (10, 60)
    assert CashEntry.objects.get(kind="activity").amount == 30
    nothing_is_left(account)


def test_a_purchase_that_doubles_a_position_is_no_split(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    quote(sim, "KO", "61")
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "100"})

    assert make_break(book).kind == "quantity"
    approve(approver)

    assert (position("KO").qty, position("KO").average_price) == (200, Decimal("60.5"))
    nothing_is_left(book)


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "amount"),
    [
        ("/sim/activity", {"activity_type": "FEE", "net_amount": "-12.34"}, "-12.34"),
        ("/sim/activity", {"activity_type": "CSD", "net_amount": "5000"}, "5000"),
        ("/sim/activity", {"activity_type": "CSW", "net_amount": "-700"}, "-700"),
        ("/sim/activity", {"activity_type": "INT", "net_amount": "3.21"}, "3.21"),
        ("/sim/dividend", {"symbol": "KO", "per_share": "0.48"}, "48"),
    ],
)
def test_money_that_the_brokers_activities_name_is_booked_once_and_is_no_break(
    sim: Sim, book: BrokerAccount, path: str, body: dict[str, str], amount: str
) -> None:
    before = cash_of(book.pk) or 0
    sim.post(path, body)

    for _ in range(3):
        nothing_is_left(book)

    entry = CashEntry.objects.exclude(kind="opening").get()
    assert (entry.kind, entry.amount) == ("activity", Decimal(amount))
    assert cash_of(book.pk) == before + Decimal(amount)
    assert (Break.objects.count(), Suspect.objects.count()) == (0, 0)


def test_cash_that_nothing_explains_is_taken_over_once_somebody_approves(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/account", {"cash": "999000"})

    row = make_break(book)
    assert (row.kind, row.difference, row.value) == ("cash", -1000, 1000)
    applied = approve(approver)

    assert applied.cash_entry is not None
    assert (applied.cash_entry.kind, applied.cash_entry.amount) == ("correction", -1000)
    assert cash_of(book.pk) == 999_000
    nothing_is_left(book)


def test_buying_power_follows_orders_fills_prices_and_hand_trades_without_a_break(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, wide_limits: None
) -> None:
    resting = _rests(sim, api, order, qty="1000")
    nothing_is_left(book)
    sim.post("/sim/fill", {"id": resting.broker_order_id, "qty": "400", "price": "40"})
    nothing_is_left(book)
    for price in ("66", "48"):
        quote(sim, "KO", price)
        nothing_is_left(book)
    sim.post("/sim/cancel", {"id": resting.broker_order_id})
    until(lambda: at_broker(sim, resting.broker_order_id or "")["status"] == "canceled")
    nothing_is_left(book)
    hold(sim, "OKE", "40", "70")  # the same again
    sold = order(symbol="KO", side="sell", qty="450", reference_price=None, limit_price="48")
    assert api.post("/orders", sold).status_code == 201
    until(lambda: not _polled().filter(status="new").exists())

    nothing_is_left(book)
    _long_ago()
    sim.post("/sim/account", {"buying_power": "200"})

    assert make_break(book).kind == "buying_power"


# --- lists that lie, lag or fail ------------------------------------------------------------------


def _fault(sim: Sim, kind: str, path: str, **more: Any) -> None:
    sim.post("/sim/faults", [{"kind": kind, "path": path, **more}])


def test_a_list_that_leaves_positions_out_makes_no_break_while_the_single_look_up_shows_them(
    sim: Sim, six: BrokerAccount
) -> None:
    _fault(sim, "list_omit", "/v2/positions", count=None)

    for _ in range(5):
        report = reconcile(six)

    assert len(report.zombies) == 3
    assert (Suspect.objects.count(), Break.objects.count()) == (3, 0)
    sim.delete("/sim/faults")
    nothing_is_left(six)
    assert Suspect.objects.count() == 0


def test_a_list_that_leaves_out_what_a_break_is_about_corrects_nothing_by_itself(
    sim: Sim, six: BrokerAccount
) -> None:
    """The break stands for more than the limits allow; what the lie shows is within them."""
    _automatic(value="1000", qty="15")
    hold(sim, "AAPL", "40", "50")
    row = make_break(six)
    assert (row.symbol, row.difference) == ("AAPL", 30)
    _fault(sim, "list_omit", "/v2/positions", count=None)

    for _ in range(3):
        reconcile(six)

    assert "AAPL" not in _listed(sim)
    assert not Correction.objects.filter(status="applied").exists()
    assert position("AAPL").qty == 10


def test_one_empty_list_is_nothing(sim: Sim, six: BrokerAccount) -> None:
    _fault(sim, "list_empty", "/v2/positions")

    report = reconcile(six)
    assert report.differences_count == 6

    nothing_is_left(six)
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)
    assert trading.current(six.pk).state == "active"


def test_an_empty_list_twice_halts_trading_which_stays_halted_when_it_heals(
    sim: Sim, six: BrokerAccount
) -> None:
    _fault(sim, "list_empty", "/v2/positions", count=2)

    row = make_break(six)

    assert row.explanation is not None
    assert (row.kind, row.explanation["hint"]) == ("mass", "account_reset")
    assert trading.current(six.pk).state == "halted"
    assert not Correction.objects.exists()
    nothing_is_left(six)
    assert Break.objects.get().status == "healed"
    assert trading.current(six.pk).state == "halted"


def test_an_account_begun_anew_is_one_mass_and_no_zombies(sim: Sim, six: BrokerAccount) -> None:
    sim.post("/sim/reset")

    rows = [make_break(six) for _ in range(2)]

    assert [row.kind for row in rows] == ["mass", "mass"]
    assert Break.objects.count() == 1
    assert not Correction.objects.exists()
    assert Position.objects.exclude(qty=0).count() == 6


def test_a_break_that_stood_before_a_mass_stands_through_it(sim: Sim, six: BrokerAccount) -> None:
    hold(sim, "KO", "9", "50")
    standing = make_break(six)
    _fault(sim, "list_empty", "/v2/positions", count=2)

    for _ in range(2):
        reconcile(six)
    open_now = set(Break.objects.filter(ended_at=None).values_list("subject", flat=True))
    reconcile(six)

    assert open_now == {"position/KO", "account/positions"}
    standing.refresh_from_db()
    assert (standing.kind, standing.broker, standing.status) == ("quantity", 9, "correcting")
    assert LedgerEntry.objects.exclude(kind="opening").count() == 0


@pytest.mark.parametrize(
    ("path", "cursor", "constant"),
    [
        ("/v2/orders", "before_order_id", "ORDERS_PAGE"),
        ("/v2/account/activities/FILL", "page_token", "ACTIVITIES_PAGE"),
    ],
)
def test_when_the_second_page_is_lost_nothing_is_concluded(
    sim: Sim,
    book: BrokerAccount,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    cursor: str,
    constant: str,
) -> None:
    quote(sim, "TSLA", "250")
    for number in range(4):
        in_app(sim, limit_price=f"{200 + number}")
        sim.post("/sim/trade", {"symbol": "OKE", "side": "sell", "qty": "1"})
    monkeypatch.setattr(alpaca, constant, 2)
    _fault(sim, "second_page_fails", path, query=cursor, count=None)

    reports = [reconcile(book) for _ in range(3)]

    assert [report.complete for report in reports] == [False] * 3
    assert (Suspect.objects.count(), Break.objects.count()) == (0, 0)
    sim.delete("/sim/faults")
    reconcile(book)
    assert Suspect.objects.count() == 5


def test_an_order_that_the_broker_no_longer_knows_is_told_until_it_does_again(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    before = sim.get("/sim/snapshot")
    resting = _rests(sim, api, order)
    nothing_is_left(book)
    after = sim.get("/sim/snapshot")
    sim.post("/sim/snapshot", before)
    _long_ago()

    row = make_break(book)

    assert (row.kind, row.order_id, row.severity) == ("order_missing", resting.pk, "critical")
    assert not Correction.objects.exists()
    resting.refresh_from_db()
    assert resting.status == "new"
    assert Alert.objects.get(code="order_missing").ended_at is None
    sim.post("/sim/snapshot", after)
    nothing_is_left(book)
    row.refresh_from_db()
    assert row.status == "healed"
    assert not Alert.objects.filter(code="order_missing", ended_at=None).exists()


def test_an_order_that_was_missed_once_and_is_there_again_leaves_no_alert_behind(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    before = sim.get("/sim/snapshot")
    _rests(sim, api, order)
    after = sim.get("/sim/snapshot")
    sim.post("/sim/snapshot", before)
    reconcile(book)
    assert Alert.objects.get(code="order_missing").ended_at is None
    assert not Break.objects.exists()

    sim.post("/sim/snapshot", after)
    nothing_is_left(book)

    assert Alert.objects.get(code="order_missing").ended_at is not None
    assert not Break.objects.exists()


def test_a_list_of_orders_as_it_was_before_takes_no_fill_back_and_makes_no_break(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    resting = _rests(sim, api, order)
    sim.post("/sim/fill", {"id": resting.broker_order_id, "qty": "4", "price": "40"})
    reconcile(book)
    _fault(sim, "list_lag", "/v2/orders", seconds=60, count=3)

    for _ in range(3):
        reconcile(book)

    resting.refresh_from_db()
    assert resting.filled_qty == 4
    nothing_is_left(book)
    assert not Break.objects.exists()


@pytest.mark.parametrize("path", ["/v2/positions", "/v2/account/activities/FILL"])
def test_a_fill_between_the_reads_is_no_break(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, path: str
) -> None:
    resting = _rests(sim, api, order)
    _long_ago()
    with Listening(book), ThreadPoolExecutor(1) as pool:
        until(lambda: listeners(sim) == 1)
        _fault(sim, "delay_after", path, seconds=0.7)
        sim.delete("/sim/log")
        run = pool.submit(_closing(lambda: reconcile(book)))
        until(lambda: sim.get("/sim/log", path=path), every=0.01)
        sim.post("/sim/fill", {"id": resting.broker_order_id, "price": "40"})
        until(lambda: Order.objects.get(pk=resting.pk).status == "filled")
        run.result()
    nothing_is_left(book)

    assert position("KO").qty == 110
    assert not Break.objects.exists()


def test_positions_that_lag_behind_a_fill_are_no_break(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 10
    resting = _rests(sim, api, order)
    sim.post("/sim/options", {"position_lag": 0.8})
    until(lambda: _listed(sim).get("KO") == 100)
    sim.post("/sim/fill", {"id": resting.broker_order_id, "price": "40"})

    report = reconcile(book)
    assert [drift["difference"] for drift in report.quantity_drifts] == ["-10"]
    assert (Suspect.objects.count(), Break.objects.count()) == (1, 0)
    until(lambda: _listed(sim)["KO"] == 110)

    nothing_is_left(book)
    assert (position("KO").qty, Suspect.objects.count()) == (110, 0)


def _listed(sim: Sim) -> dict[str, Decimal]:
    """What the broker lists, without what it leaves out or has not got to yet."""
    return {p["symbol"]: Decimal(p["qty"]) for p in sim.trading("GET", "/v2/positions").json()}


def test_of_another_account_with_the_same_symbol_nothing_is_touched(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    Position.objects.create(account=other, symbol="KO", broker_qty=7)
    hold(sim, "KO", "90", "60")

    make_break(book)
    approve(approver)

    theirs = Position.objects.get(account=other, symbol="KO")
    assert (theirs.qty, theirs.broker_qty, theirs.ledger_version) == (0, 7, 0)
    assert Position.objects.get(account=book, symbol="KO").qty == 90
    assert not Break.objects.filter(account=other).exists()


# --- one subject, one break -----------------------------------------------------------------------


def test_a_drift_that_grows_while_it_waits_is_the_same_break_with_a_new_proposal(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    stale = waiting()
    hold(sim, "KO", "80", "60")

    reconcile(book)

    stale.refresh_from_db()
    row.refresh_from_db()
    assert (stale.status, waiting().difference) == ("superseded", -20)
    assert (row.difference, row.seen_count, row.status) == (-20, 3, "correcting")
    whats = [event.what for event in row.events.all()]
    assert whats == ["opened", "proposed", "changed", "proposed"]
    with pytest.raises(NotDecided, match="facts moved after"):
        decide(stale.pk, "approve", user=approver, comment="the old one")
    assert position("KO").qty == 100
    approve(approver)
    nothing_is_left(book)


def test_a_zombie_of_which_some_comes_back_is_a_quantity_in_the_same_break(
    sim: Sim, book: BrokerAccount
) -> None:
    hold(sim, "KO", "0", "60")
    row = make_break(book)
    assert row.kind == "zombie"
    hold(sim, "KO", "10", "60")

    reconcile(book)

    assert Break.objects.get().pk == row.pk
    row.refresh_from_db()
    assert (row.kind, row.difference, waiting().broker) == ("quantity", -90, 10)
    told = dict(Alert.objects.filter(ended_at=None).values_list("code", "subject"))
    assert told == {"break_quantity": "KO"}


def test_a_healed_break_that_comes_back_is_opened_again_with_its_history(
    sim: Sim, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    first_seen = row.first_seen
    hold(sim, "KO", "100", "60")
    reconcile(book)
    hold(sim, "KO", "95", "60")

    again = make_break(book)

    assert (again.pk, again.first_seen, again.reopened_count) == (row.pk, first_seen, 1)
    assert (again.seen_count, again.difference, again.status) == (3, -5, "correcting")
    whats = [event.what for event in again.events.all()]
    assert whats == ["opened", "proposed", "healed", "reopened", "proposed"]
    assert Alert.objects.filter(code="break_quantity", ended_at=None).count() == 1


def test_a_break_that_healed_two_days_ago_is_not_opened_again(
    sim: Sim, book: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    hold(sim, "KO", "100", "60")
    reconcile(book)
    Break.objects.update(ended_at=F("ended_at") - timedelta(days=2))
    hold(sim, "KO", "95", "60")

    again = make_break(book)

    assert again.pk != row.pk
    assert (again.reopened_count, Break.objects.count()) == (0, 2)


# --- subjects that never stand still --------------------------------------------------------------


def test_a_steady_drift_of_a_symbol_that_trades_all_the_time_is_found_but_not_corrected_by_itself(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, approver: User, wide_limits: None
) -> None:
    _automatic(value="1000", qty="10")
    hold(sim, "KO", "101", "60")

    looks = 0
    while not Break.objects.exists():
        reconcile(book)
        looks += 1
        _trade_one(sim, api, order, f"busy-{looks}")
        assert looks < 6

    assert looks == 3
    row = Break.objects.get()
    assert (row.kind, row.difference, row.quiet) == ("quantity", 1, False)
    assert not Correction.objects.filter(status="applied").exists()
    reconcile(book)
    approve(approver)
    nothing_is_left(book)


def test_a_drift_that_changes_at_every_look_is_a_break_after_five_minutes(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, wide_limits: None
) -> None:
    _automatic(value="10000", qty="100")
    for number in range(4):
        hold(sim, "KO", str(110 + 2 * number), "60")
        reconcile(book)
        _trade_one(sim, api, order, f"restless-{number}")
    assert Break.objects.count() == 0

    Suspect.objects.update(first_seen=F("first_seen") - looks._RESTLESS)
    hold(sim, "KO", "150", "60")
    reconcile(book)

    row = Break.objects.get()
    assert (row.symbol, row.quiet) == ("KO", False)
    assert waiting().automatic is False
    assert not LedgerEntry.objects.filter(kind="correction").exists()


def _trade_one(sim: Sim, api: Api, order: MakeOrder, name: str) -> None:
    """One more KO, bought and booked."""
    quote(sim, "KO", "60")
    body = order(symbol="KO", qty="1", reference_price=None, limit_price="60", client_order_id=name)
    assert api.post("/orders", body).status_code == 201
    until(lambda: _polled().filter(client_order_id=name, status="filled").exists())


def _polled() -> QuerySet[Order]:
    """All orders, as the broker has them now."""
    order_jobs.poll()
    return Order.objects.all()


def _long_ago() -> None:
    """Plays that orders have not moved for a minute."""
    Order.objects.update(updated_at=F("updated_at") - timedelta(minutes=1))


# --- by itself ------------------------------------------------------------------------------------


def _automatic(value: str = "100", qty: str = "1") -> None:
    call_command(
        "limits",
        "reconcile_mode=automatic",
        f"auto_correct_max_value={value}",
        f"auto_correct_max_qty={qty}",
        reason="small ones need nobody",
    )


def test_within_the_limits_it_is_corrected_by_itself_once(sim: Sim, book: BrokerAccount) -> None:
    _automatic()
    quote(sim, "KO", "60")
    hold(sim, "KO", "99", "60")

    reconcile(book)
    assert not Correction.objects.exists()
    report = reconcile(book)

    applied = Correction.objects.get()
    assert (applied.status, applied.automatic, applied.decided_by) == ("applied", True, None)
    assert report.reconciled_count == 1
    assert (position("KO").qty, Break.objects.get().status) == (99, "resolved")
    nothing_is_left(book)
    assert LedgerEntry.objects.filter(kind="correction").count() == 1


@pytest.mark.parametrize(
    ("value", "qty", "symbol", "broker", "average"),
    [
        ("100", "100", "KO", "98", "60"),  # two shares are more than $100
        ("100000", "1", "KO", "98", "60"),
        ("100000", "100", "PEP", "1", "60"),  # an orphan
        ("100000", "1000", "KO", "200", "30"),  # a split
        ("100000", "1000", "KO", "-1", "60"),  # another side
    ],
    ids=["over the value", "over the shares", "an orphan", "a split", "another side"],
)
def test_beyond_the_limits_and_for_what_is_never_small_it_is_proposed_to_a_person(
    sim: Sim,
    book: BrokerAccount,
    value: str,
    qty: str,
    symbol: str,
    broker: str,
    average: str,
) -> None:
    _automatic(value=value, qty=qty)
    quote(sim, symbol, "60")
    hold(sim, symbol, broker, average)

    for _ in range(3):
        reconcile(book)

    assert (waiting().position, waiting().automatic) == (position(symbol), False)
    assert position("KO").qty == 100
    assert not LedgerEntry.objects.exclude(kind="opening").exists()


def test_a_position_that_drifts_again_within_the_hour_waits_for_a_person(
    sim: Sim, book: BrokerAccount
) -> None:
    _automatic()
    quote(sim, "KO", "60")
    hold(sim, "KO", "99", "60")
    for _ in range(2):
        reconcile(book)
    hold(sim, "KO", "98", "60")

    for _ in range(3):
        reconcile(book)
    assert (waiting().local, waiting().broker, position("KO").qty) == (99, 98, 99)

    hold(sim, "KO", "99", "60")
    reconcile(book)
    Correction.objects.filter(automatic=True).update(
        decided_at=F("decided_at") - timedelta(hours=2)
    )
    hold(sim, "KO", "98", "60")
    for _ in range(2):
        reconcile(book)
    assert position("KO").qty == 98


def test_an_average_within_the_limits_is_taken_over_by_itself(
    sim: Sim, book: BrokerAccount
) -> None:
    _automatic()
    hold(sim, "KO", "100", "60.90")

    for _ in range(2):
        reconcile(book)

    assert (position("KO").qty, position("KO").average_price) == (100, Decimal("60.9"))
    assert Correction.objects.get().automatic
    nothing_is_left(book)


@pytest.mark.parametrize("mode", ["read_only", "off"])
def test_what_is_only_watched_or_not_even_that_is_not_corrected(
    sim: Sim, book: BrokerAccount, mode: str
) -> None:
    call_command("limits", f"reconcile_mode={mode}", reason="hands off")
    hold(sim, "KO", "99.5", "60")

    for _ in range(3):
        report = reconcile(book)

    assert report.differences_count == 1
    assert Break.objects.count() == (1 if mode == "read_only" else 0)
    assert not Correction.objects.exists()


def _closing(call: Callable[[], Any]) -> Callable[[], Any]:
    def closing() -> Any:
        try:
            return call()
        finally:
            connection.close()

    return closing


# --- what is proposed when facts move, and what is settled ----------------------------------------


def _sell_by_hand(sim: Sim, qty: str, price: str) -> None:
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": qty, "price": price})


def test_a_second_trade_outside_while_the_first_waits_is_booked_at_the_price_of_both(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    _sell_by_hand(sim, "30", "65")
    make_break(book)
    _sell_by_hand(sim, "10", "66")

    reconcile(book)
    approve(approver)

    assert (position("KO").qty, position("KO").realized_profit) == (60, 30 * 5 + 10 * 6)
    nothing_is_left(book)


def test_what_takes_the_place_of_a_stale_proposal_has_the_price_of_both_trades_too(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    _sell_by_hand(sim, "30", "65")
    make_break(book)
    _sell_by_hand(sim, "10", "66")
    with pytest.raises(NotDecided, match="facts moved"):
        approve(approver)

    reconcile(book)
    approve(approver)

    assert (position("KO").qty, position("KO").realized_profit) == (60, 30 * 5 + 10 * 6)
    nothing_is_left(book)


def test_shares_sold_after_a_split_before_it_was_approved_are_not_booked_as_a_part_of_it(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/split", {"symbol": "KO", "new_rate": "2", "old_rate": "1"})
    make_break(book)
    _sell_by_hand(sim, "5", "30")
    with pytest.raises(NotDecided, match="facts moved"):
        approve(approver)

    with pytest.raises((NotDecided, Correction.DoesNotExist)):  # nobody knows yet what it is
        approve(approver)
    reconcile(book)

    assert not LedgerEntry.objects.filter(kind="split").exists()
    assert waiting().kind == "position"
    approve(approver)
    assert position("KO").qty == 195
    nothing_is_left(book)


def test_a_list_that_leaves_out_an_orphan_does_not_heal_its_break(
    sim: Sim, six: BrokerAccount
) -> None:
    sim.post("/sim/symbol", {"symbol": "AAA", "price": "50"})
    hold(sim, "AAA", "3", "50")
    row = make_break(six)
    assert row.symbol == "AAA"
    _fault(sim, "list_omit", "/v2/positions", count=2)
    assert "AAA" not in _listed(sim)

    reconcile(six)

    row.refresh_from_db()
    assert row.status == "correcting"
    assert Alert.objects.get(code="break_orphan").ended_at is None


def test_a_list_that_leaves_out_an_external_order_does_not_heal_its_break(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    placed = in_app(sim)
    row = make_break(book)
    _fault(sim, "list_empty", "/v2/orders", count=2)

    for _ in range(2):
        reconcile(book)

    row.refresh_from_db()
    assert (row.subject, row.status) == (f"order/{placed['id']}", "open")


def test_buying_power_that_a_person_calls_in_order_is_where_it_begins_anew(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/account", {"buying_power": "200"})
    row = make_break(book)

    queue.resolve(row, by=approver, comment="The broker holds it back; that is agreed.")

    for _ in range(2):
        nothing_is_left(book)
    assert Break.objects.get().status == "resolved"


def test_an_order_that_a_person_calls_lost_is_not_told_again(
    sim: Sim, book: BrokerAccount, api: Api, order: MakeOrder, approver: User
) -> None:
    before = sim.get("/sim/snapshot")
    _rests(sim, api, order)
    sim.post("/sim/snapshot", before)
    _long_ago()
    row = make_break(book)

    queue.resolve(row, by=approver, comment="Alpaca says that it never was.")

    for _ in range(3):
        _long_ago()
        reconcile(book)
    assert list(Break.objects.values_list("status", flat=True)) == ["resolved"]
    lost = Order.objects.get()
    assert (lost.status, lost.is_open) == ("canceled", False)
    assert "never was" in lost.history.latest("seq").reason
    assert list(violations()) == []
