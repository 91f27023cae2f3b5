"""External orders that a person makes ours: they count, can be cancelled here, and fill our book;
and what had been booked of them as others' trades is reversed."""

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from orders import jobs
from orders.cancel_all import cancel_all
from orders.cancelling import cancel
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.working import WorkingOrders
from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import corrections, run
from reconciliation.adoption import NotAdopted, adopt
from reconciliation.models import Break, Correction
from reconciliation.run import reconcile
from risk import figures
from tests.conftest import Api, quote
from tests.reconciliation.comparing import under_way
from tests.reconciliation.killing import killed
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("wide_limits"),
]


@pytest.fixture
def ann(db: None) -> User:
    return User.objects.create_superuser("ann")


def placed(sim: SimulatorServer, **changes: Any) -> dict[str, Any]:
    """An order placed in the broker's own app: a buy of 10 TSLA far below the market."""
    body = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": "10",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "200",
        "client_order_id": "from-the-app",
    }
    wanted = {name: value for name, value in {**body, **changes}.items() if value is not None}
    answer = sim.trading("POST", "/v2/orders", json=wanted)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    until(lambda: _status(sim, told["id"]) != "pending_new")
    return told


def _status(sim: SimulatorServer, broker_id: str) -> str:
    state = sim.get("/sim/state")["orders"]
    return next(str(each["status"]) for each in state if each["id"] == broker_id)


def break_of(account: BrokerAccount) -> Break:
    """The break that two looks make of the external order."""
    reconcile(account)
    reconcile(account)
    return Break.objects.get(kind="order_external", ended_at=None)


def broker_cash(account: BrokerAccount) -> Decimal:
    return figures.ask(account).account.cash


def test_an_open_order_becomes_ours_with_all_its_terms(
    sim: SimulatorServer, book: BrokerAccount, ann: User, api: Api
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim, client_order_id="x" * 128)
    row = break_of(book)

    order = adopt(row, by=ann, reason="it is mine")

    assert (order.client_order_id, order.broker_order_id) == ("x" * 128, told["id"])
    assert (order.symbol, order.side, order.qty, order.type) == ("TSLA", "buy", 10, "limit")
    assert (order.limit_price, order.worst_price, order.time_in_force) == (200, 200, "day")
    assert (order.strategy.name, order.status) == ("operator", "new")
    assert order.acknowledged_at is not None
    assert order.created_at < row.first_seen
    first = order.history.first()
    assert first is not None
    assert (first.source, first.actor, first.reason) == ("operator", "ann", "Adopted: it is mine")
    row.refresh_from_db()
    assert row.status == "resolved"
    last = row.events.last()
    assert last is not None
    assert (last.actor, "it is mine" in last.text) == ("ann", True)
    assert list(violations()) == []


def test_it_counts_from_then_on_and_stays_no_break(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    placed(sim)
    row = break_of(book)
    before = WorkingOrders.of(book.pk, figures.database_now())

    adopt(row, by=ann, reason="mine")

    after = WorkingOrders.of(book.pk, figures.database_now())
    assert (before.committed.money, after.committed.money) == (0, 2000)
    exposed = [(each.symbol, each.open_qty, each.price) for each in after.working({})]
    assert exposed == [("TSLA", 10, 200)]
    report = reconcile(book)
    assert (report.complete, report.differences) == (True, [])


def test_an_order_of_ours_against_it_is_a_wash_trade(
    sim: SimulatorServer, book: BrokerAccount, ann: User, api: Api
) -> None:
    quote(sim, "KO", "60")
    placed(sim, symbol="KO", limit_price="50")
    adopt(break_of(book), by=ann, reason="mine")

    answer = api.post(
        "/orders", {"symbol": "KO", "side": "sell", "qty": "5", "type": "limit", "limit_price": 49}
    )

    assert "wash_trade" in [each["code"] for each in answer.json()["violations"]]


def test_it_can_be_cancelled_here(sim: SimulatorServer, book: BrokerAccount, ann: User) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    order = adopt(break_of(book), by=ann, reason="mine")

    cancel(order, Origin(Source.OPERATOR, "ann", "not any more"))

    until(lambda: _status(sim, told["id"]) == "canceled")
    jobs.poll()
    assert Order.objects.get().status == "canceled"
    assert list(violations()) == []


def test_a_cancel_of_all_confirms_it(sim: SimulatorServer, book: BrokerAccount, ann: User) -> None:
    quote(sim, "TSLA", "250")
    placed(sim)
    adopt(break_of(book), by=ann, reason="mine")

    cancel_all(book, Origin(Source.OPERATOR, "ann", "stop"))

    until(lambda: Order.objects.get().status == "canceled")


def test_its_later_fills_are_booked(sim: SimulatorServer, book: BrokerAccount, ann: User) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    adopt(break_of(book), by=ann, reason="mine")

    sim.post("/sim/fill", {"id": told["id"], "price": "199"})
    jobs.poll()

    position = Position.objects.get(symbol="TSLA")
    assert (position.qty, position.average_price) == (10, 199)
    assert cash_of(book.pk) == broker_cash(book)
    report = reconcile(book)
    assert (report.complete, report.differences) == (True, [])
    assert list(violations()) == []


def test_what_had_filled_before_is_booked_as_its_fill_and_no_longer_as_a_trade_outside(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)
    assert Break.objects.filter(kind="orphan", symbol="TSLA", ended_at=None).count() == 1
    assert CashEntry.objects.get(kind="external_trade").amount == -796

    order = adopt(row, by=ann, reason="mine")

    assert (order.status, order.filled_qty) == ("partially_filled", 4)
    assert Position.objects.get(symbol="TSLA").qty == 4
    booked = list(CashEntry.objects.filter(kind="external_trade").order_by("pk"))
    assert [entry.amount for entry in booked] == [-796, 796]
    assert booked[1].cause == f"{booked[0].cause}/adopted"
    assert cash_of(book.pk) == broker_cash(book)
    report = reconcile(book)
    assert (report.complete, report.differences) == (True, [])
    assert Break.objects.get(kind="orphan").status == "healed"
    assert Correction.objects.exclude(status="superseded").count() == 0
    assert list(violations()) == []


def test_a_late_fill_counts_once_also_where_cash_was_corrected_since(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)
    sim.post("/sim/account", {"cash": str(broker_cash(book) - 500)})
    reconcile(book)
    reconcile(book)
    wrong = Correction.objects.get(kind="cash", status="proposed")
    corrections.decide(wrong.pk, "approve", user=approver, comment="a fee, by telephone")

    adopt(row, by=ann, reason="mine")

    assert cash_of(book.pk) == broker_cash(book)
    assert list(violations()) == []


def test_cash_stays_right_with_the_comparison_that_follows_such_an_adoption(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)
    sim.post("/sim/account", {"cash": str(broker_cash(book) - 500)})
    reconcile(book)
    reconcile(book)
    wrong = Correction.objects.get(kind="cash", status="proposed")
    corrections.decide(wrong.pk, "approve", user=approver, comment="a fee, by telephone")
    adopt(row, by=ann, reason="mine")

    reconcile(book)

    assert cash_of(book.pk) == broker_cash(book)


def test_cash_is_right_where_it_was_corrected_between_two_fills_of_the_adopted_order(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)
    sim.post("/sim/account", {"cash": str(broker_cash(book) - 500)})
    reconcile(book)
    reconcile(book)
    wrong = Correction.objects.get(kind="cash", status="proposed")
    corrections.decide(wrong.pk, "approve", user=approver, comment="a fee, by telephone")
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "198"})
    reconcile(book)

    adopt(row, by=ann, reason="mine")

    reconcile(book)
    assert cash_of(book.pk) == broker_cash(book)
    assert list(violations()) == []


def test_one_whose_fills_may_be_in_the_book_already_is_refused(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)
    proposal = Correction.objects.get(status="proposed")
    corrections.decide(proposal.pk, "approve", user=approver, comment="bought in the app")
    entries = LedgerEntry.objects.count(), CashEntry.objects.count()

    with pytest.raises(NotAdopted, match="booked twice"):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0
    assert (LedgerEntry.objects.count(), CashEntry.objects.count()) == entries
    row.refresh_from_db()
    assert row.is_open


def test_one_that_filled_only_after_the_correction_is_adopted(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "2"})
    row = break_of(book)
    proposal = Correction.objects.get(status="proposed")
    corrections.decide(proposal.pk, "approve", user=approver, comment="another trade")
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    reconcile(book)

    adopt(row, by=ann, reason="mine")

    assert Position.objects.get(symbol="TSLA").qty == 6
    assert cash_of(book.pk) == broker_cash(book)
    assert list(violations()) == []


@pytest.mark.parametrize("sold", [False, True], ids=["held still", "sold again"])
def test_one_that_had_filled_before_the_book_was_opened_is_refused(
    sim: SimulatorServer, account: BrokerAccount, ann: User, settings: Any, sold: bool
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    if sold:  # then the opening has no entry of these shares
        sim.post("/sim/position", {"symbol": "TSLA", "qty": "0"})
    row = break_of(account)

    with pytest.raises(NotAdopted, match="booked twice"):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0


def test_adopted_twice_it_is_the_same_order(
    sim: SimulatorServer, book: BrokerAccount, ann: User, approver: User
) -> None:
    quote(sim, "TSLA", "250")
    placed(sim)
    row = break_of(book)
    stale = Break.objects.get(pk=row.pk)

    first, second = adopt(row, by=ann, reason="mine"), adopt(stale, by=approver, reason="no, mine")

    assert first == second == Order.objects.get()
    assert row.events.filter(what="resolved").count() == 1


def test_eight_people_at_the_same_moment_adopt_it_once(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)

    def press(_: int) -> Any:
        try:
            return adopt(Break.objects.get(pk=row.pk), by=ann, reason="mine").pk
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(press, range(8)))

    assert found == {Order.objects.get().pk}
    assert Position.objects.get(symbol="TSLA").qty == 4
    assert cash_of(book.pk) == broker_cash(book)


def test_nothing_is_adopted_while_a_comparison_is_under_way(
    sim: SimulatorServer, book: BrokerAccount, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could book as another's trade what is ours by then."""
    quote(sim, "TSLA", "250")
    placed(sim)
    row = break_of(book)
    monkeypatch.setattr(run, "_LONGEST_WAIT", 1)

    with under_way(book), pytest.raises(NotAdopted, match="under way"):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0


def test_an_adoption_that_is_killed_half_way_changes_nothing(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    sim.post("/sim/fill", {"id": told["id"], "qty": "4", "price": "199"})
    row = break_of(book)

    assert killed("adopt", row.pk, broker=sim.url, at="adoption.taken_in")

    assert Order.objects.count() == 0
    assert Position.objects.get(symbol="TSLA").qty == 0
    row.refresh_from_db()
    assert row.is_open
    assert adopt(row, by=ann, reason="again").filled_qty == 4
    assert cash_of(book.pk) == broker_cash(book)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {
                "order_class": "bracket",
                "take_profit": {"limit_price": "300"},
                "stop_loss": {"stop_price": "150"},
            },
            "class bracket",
        ),
        ({"client_order_id": "restore-7"}, "only Ordinis gives"),
    ],
)
def test_what_can_not_be_followed_is_refused_by_name(
    sim: SimulatorServer,
    book: BrokerAccount,
    ann: User,
    changes: dict[str, Any],
    why: str,
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim, **changes)
    reconcile(book)
    reconcile(book)
    row = Break.objects.get(kind="order_external", broker_order_id=told["id"])

    with pytest.raises(NotAdopted, match=why):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0


def test_one_that_has_ended_is_refused(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    told = placed(sim)
    row = break_of(book)
    sim.trading("DELETE", f"/v2/orders/{told['id']}")
    until(lambda: _status(sim, told["id"]) == "canceled")

    with pytest.raises(NotAdopted, match="ended at the broker"):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0


def test_one_that_the_broker_no_longer_knows_is_refused(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    placed(sim)
    row = break_of(book)
    Break.objects.filter(pk=row.pk).update(broker_order_id="0" * 36)
    row.refresh_from_db()

    with pytest.raises(NotAdopted, match="no longer knows"):
        adopt(row, by=ann, reason="mine")

    assert Order.objects.count() == 0


def test_a_market_order_ties_up_what_it_may_come_to(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    sim.post("/sim/options", {"fill_delay": 3600})
    placed(sim, type="market", limit_price=None)

    order = adopt(break_of(book), by=ann, reason="mine")

    assert order.worst_price is not None
    assert 250 < order.worst_price < 300


def test_a_trailing_stop_and_a_stop_are_adopted_with_their_terms(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "KO", "60")
    placed(
        sim,
        symbol="KO",
        side="sell",
        type="trailing_stop",
        limit_price=None,
        trail_percent="5",
        client_order_id="trails",
    )
    order = adopt(break_of(book), by=ann, reason="mine")

    assert (order.trail_percent, order.stop_price, order.limit_price) == (5, None, None)
    report = reconcile(book)
    assert (report.complete, report.differences) == (True, [])


def test_a_short_sale_ties_up_money_and_no_shares(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    placed(sim, side="sell", limit_price="300")

    order = adopt(break_of(book), by=ann, reason="mine")

    assert order.sells_short
    assert order.worst_price == 300
    committed = WorkingOrders.of(book.pk, figures.database_now()).committed
    assert (committed.money, committed.sold("TSLA")) == (3000, 0)


def test_without_a_reason_nothing_is_adopted(
    sim: SimulatorServer, book: BrokerAccount, ann: User
) -> None:
    quote(sim, "TSLA", "250")
    placed(sim)

    with pytest.raises(ValueError, match="reason"):
        adopt(break_of(book), by=ann, reason=" ")

    assert Order.objects.count() == 0
