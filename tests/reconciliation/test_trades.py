"""Restoring a position by a trade: proposed by a person, approved by another, sent once, and never
booked on top of what the book had not let go."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from orders import jobs, resolver, statuses, wake
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.verify import violations
from positions.models import LedgerEntry, Position
from reconciliation import corrections, proposals, trades
from reconciliation.models import Break, Correction
from reconciliation.run import reconcile
from reconciliation.trades import NotProposed
from risk import figures, trading
from risk.states import HALTED
from tests.conftest import quote, sent
from tests.reconciliation.conftest import make_break
from tests.reconciliation.killing import killed
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("wide_limits"),
]


@pytest.fixture
def proposer(db: None) -> User:
    return User.objects.create_superuser("proposer")


@pytest.fixture
def sold(sim: SimulatorServer, book: BrokerAccount) -> Break:
    """10 of our 100 KO were sold by hand at 60."""
    quote(sim, "KO", "60")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10"})
    return make_break(book)


Approve = Callable[[Correction], Correction]


@pytest.fixture
def approve(approver: User) -> Approve:
    def press(correction: Correction) -> Correction:
        return corrections.decide(correction.pk, "approve", user=approver, comment="buy it back")

    return press


def approved_but_not_sent(correction: Correction, approver: User) -> Correction:
    """As a process leaves it that dies right after the approval was committed."""
    Correction.objects.filter(pk=correction.pk).update(
        status="applied",
        decided_by=approver,
        decided_at=figures.database_now(),
        client_order_id=f"restore-{correction.pk}",
    )
    return Correction.objects.get(pk=correction.pk)


def filled(sim: SimulatorServer) -> None:
    """The restoring order has filled, and we know."""
    until(
        lambda: [
            told
            for told in sim.get("/sim/state")["orders"]
            if told["client_order_id"].startswith("restore-") and told["status"] == "filled"
        ]
    )
    jobs.poll()
    until(wake.is_idle)


def shares_at_broker(sim: SimulatorServer, symbol: str) -> Decimal:
    held = {p["symbol"]: Decimal(p["qty"]) for p in sim.get("/sim/state")["positions"]}
    return held.get(symbol, Decimal(0))


def test_a_hand_sale_is_bought_back_and_the_trade_resolves_the_break(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    proposal = trades.propose(sold, by=proposer, reason="nobody meant to sell")

    done = approve(proposal)

    assert done.order is not None
    assert (done.problem, done.order.client_order_id) == ("", f"restore-{done.pk}")
    assert (done.order.side, done.order.qty, done.order.limit_price) == ("buy", 10, Decimal("60.3"))
    first = done.order.history.first()
    assert first is not None
    assert (done.order.strategy.name, first.actor) == ("operator", "approver")
    filled(sim)
    assert shares_at_broker(sim, "KO") == Position.objects.get(symbol="KO").qty == 100
    reconcile(sold.account)
    sold.refresh_from_db()
    assert sold.status == "resolved"
    assert Correction.objects.filter(ledger_entry__isnull=False).count() == 0
    assert list(violations()) == []


def test_what_a_trade_restores_costs_what_it_costs_at_the_broker(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    quote(sim, "KO", "70")
    approve(trades.propose(sold, by=proposer, reason="back, dearer"))
    filled(sim)

    report = reconcile(sold.account)

    assert Position.objects.get(symbol="KO").average_price == 61
    assert (report.complete, report.differences) == (True, [])


def test_a_part_that_filled_heals_a_part_and_the_rest_can_be_proposed_again(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    sim.post("/sim/options", {"fill_delay": 3600})
    done = approve(trades.propose(sold, by=proposer, reason="back"))
    assert done.order is not None
    broker_id = Order.objects.get(pk=done.order.pk).broker_order_id
    sim.post("/sim/fill", {"id": broker_id, "qty": "4"})
    jobs.poll()

    with pytest.raises(NotProposed, match="still under way"):
        trades.propose(sold, by=proposer, reason="again")
    sim.trading("DELETE", f"/v2/orders/{broker_id}")
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "canceled"])
    jobs.poll()
    reconcile(sold.account)

    sold.refresh_from_db()
    assert (sold.is_open, sold.difference) == (True, -6)
    assert Position.objects.get(symbol="KO").qty == 100
    assert trades.preview(sold).qty == 6
    assert list(violations()) == []


def test_what_comes_back_in_two_parts_is_not_booked_on_top_either(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    sim.post("/sim/options", {"fill_delay": 3600})
    done = approve(trades.propose(sold, by=proposer, reason="back"))
    assert done.order is not None

    for qty in ("4", "6"):
        sim.post("/sim/fill", {"id": done.order.broker_order_id, "qty": qty})
        jobs.poll()

    assert Order.objects.get().status == "filled"
    assert shares_at_broker(sim, "KO") == Position.objects.get(symbol="KO").qty == 100
    assert list(violations()) == []


def test_shares_that_came_from_outside_are_sold_again(
    sim: SimulatorServer, book: BrokerAccount, proposer: User, approve: Approve
) -> None:
    quote(sim, "TSLA", "250")
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "7"})
    row = make_break(book)

    done = approve(trades.propose(row, by=proposer, reason="nobody meant to buy"))

    assert done.order is not None
    assert (done.order.side, done.order.qty) == ("sell", 7)
    filled(sim)
    assert shares_at_broker(sim, "TSLA") == Position.objects.get(symbol="TSLA").qty == 0
    reconcile(book)
    row.refresh_from_db()
    assert row.status == "resolved"
    assert list(violations()) == []


def test_a_position_that_was_closed_outside_is_opened_again(
    sim: SimulatorServer, book: BrokerAccount, proposer: User, approve: Approve
) -> None:
    quote(sim, "OKE", "70")
    sim.post("/sim/trade", {"symbol": "OKE", "side": "sell", "qty": "40"})
    row = make_break(book)

    done = approve(trades.propose(row, by=proposer, reason="nobody meant to close"))

    assert done.problem == ""
    filled(sim)
    assert shares_at_broker(sim, "OKE") == Position.objects.get(symbol="OKE").qty == 40
    reconcile(book)
    row.refresh_from_db()
    assert row.status == "resolved"


def test_a_restoring_order_books_as_any_other_once_the_book_was_corrected_meanwhile(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User, approve: Approve
) -> None:
    """Then what had left is out of the book already, and comes back with the fill."""
    sim.post("/sim/options", {"fill_delay": 3600})
    done = approve(trades.propose(sold, by=proposer, reason="back"))
    correction = proposals.propose(sold, figures.ask(sold.account), by=proposer)
    assert correction is not None
    approve(correction)
    assert Position.objects.get(symbol="KO").qty == 90

    sim.post("/sim/fill", {"id": done.order and done.order.broker_order_id})
    jobs.poll()

    assert shares_at_broker(sim, "KO") == Position.objects.get(symbol="KO").qty == 100
    assert list(violations()) == []


def test_sent_twice_it_is_one_order(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    done = approve(trades.propose(sold, by=proposer, reason="back"))

    again = trades.carry_out(done.pk)

    assert again.order == done.order
    assert len(sent(sim)) == 1


def test_sent_by_eight_at_the_same_moment_it_is_one_order(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)

    def press(_: int) -> None:
        try:
            trades.carry_out(due.pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(press, range(8)))

    due.refresh_from_db()
    assert due.order is not None
    assert len(sent(sim)) == 1
    assert due.problem == ""


def test_while_one_process_is_sending_it_another_leaves_it_alone(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)
    sending, ended = threading.Event(), threading.Event()

    def sends() -> None:
        with trades._alone(due.pk):
            sending.set()
            ended.wait(30)
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(sends)
        assert sending.wait(10)
        trades.carry_out(due.pk)
        assert sent(sim) == []
        ended.set()

    trades.carry_out(due.pk)
    assert len(sent(sim)) == 1


def test_what_was_approved_and_not_sent_is_pursued(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)

    trades.pursue()
    trades.pursue()

    due.refresh_from_db()
    assert due.order is not None
    assert len(sent(sim)) == 1


@pytest.mark.parametrize("point", ["trade.submitted", "submit.before_commit", "send.committed"])
def test_a_trade_whose_process_was_killed_is_sent_once_all_the_same(
    sim: SimulatorServer,
    sold: Break,
    proposer: User,
    approver: User,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    monkeypatch.setattr(resolver, "_OVER", timedelta(seconds=0.3))
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)

    assert killed("carry_out", due.pk, broker=sim.url, at=point)

    due.refresh_from_db()
    assert due.order_id is None
    trades.pursue()
    long_ago = figures.database_now() - timedelta(seconds=20)
    Order.objects.filter(status=statuses.SUBMITTING).update(submitted_at=long_ago)
    until(_resolved, seconds=30)
    filled(sim)
    due.refresh_from_db()
    assert due.order == Order.objects.get()
    assert (
        len([o for o in sim.get("/sim/state")["orders"] if "restore" in o["client_order_id"]]) == 1
    )
    assert Position.objects.get(symbol="KO").qty == 100
    assert list(violations()) == []


def _resolved() -> bool:
    jobs.resolve()
    return Order.objects.get().acknowledged_at is not None


def test_a_broker_that_is_away_is_waited_for_but_not_for_ever(
    sim: SimulatorServer,
    sold: Break,
    proposer: User,
    approver: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)

    def away(*_: Any) -> None:
        raise BrokerUnavailable("The broker does not answer.")

    with monkeypatch.context() as patched:
        patched.setattr(figures, "ask", away)
        trades.pursue()
    due.refresh_from_db()
    assert (due.order, due.problem) == (None, "")
    Correction.objects.update(decided_at=figures.database_now() - timedelta(minutes=11))
    trades.pursue()

    due.refresh_from_db()
    assert due.order is None
    assert "not sent in time" in due.problem
    assert sent(sim) == []


def test_a_trade_that_our_checks_deny_says_why_and_leaves_the_break_open(
    sim: SimulatorServer, sold: Break, proposer: User, approve: Approve
) -> None:
    trading.set_state(sold.account_id, HALTED, reason="smoke", actor="ann")

    done = approve(trades.propose(sold, by=proposer, reason="back"))

    assert "denied" in done.problem
    assert "halted" in done.problem.lower()
    assert done.order is not None
    assert done.order.status == statuses.DENIED
    assert sent(sim) == []
    sold.refresh_from_db()
    assert sold.status == "open"
    assert Position.objects.get(symbol="KO").qty == 100
    assert done.problem in [event.text.partition(". ")[2] for event in sold.events.all()]


def test_a_trade_on_facts_that_moved_after_the_approval_is_not_sent(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    due = approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "10"})

    trades.pursue()

    due.refresh_from_db()
    assert due.order is None
    assert "facts moved" in due.problem
    assert sent(sim) == []


def test_a_proposal_of_ordinis_gives_way_and_one_of_a_person_does_not(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    own = Correction.objects.get(status="proposed")

    trade = trades.propose(sold, by=proposer, reason="back")
    with pytest.raises(NotProposed, match="waits for a decision"):
        trades.propose(sold, by=approver, reason="me too")

    own.refresh_from_db()
    assert own.status == "superseded"
    assert Correction.objects.get(status="proposed") == trade
    assert (trade.local, trade.broker, trade.kind) == (100, 90, "trade")
    sold.refresh_from_db()
    assert sold.status == "correcting"
    last = sold.events.last()
    assert last is not None
    assert (last.what, last.actor, last.text) == ("proposed", "proposer", "back")


def test_while_an_approved_trade_is_not_sent_yet_no_other_is_proposed(
    sim: SimulatorServer, sold: Break, proposer: User, approver: User
) -> None:
    approved_but_not_sent(trades.propose(sold, by=proposer, reason="back"), approver)

    with pytest.raises(NotProposed, match="still under way"):
        trades.propose(sold, by=proposer, reason="again")

    assert Correction.objects.filter(kind="trade").count() == 1


def test_the_next_comparison_leaves_a_waiting_trade_alone(
    sim: SimulatorServer, sold: Break, proposer: User
) -> None:
    trade = trades.propose(sold, by=proposer, reason="back")

    reconcile(sold.account)

    assert Correction.objects.get(status="proposed") == trade


def test_a_preview_says_what_would_be_sent_and_changes_nothing(
    sim: SimulatorServer, sold: Break
) -> None:
    entries = LedgerEntry.objects.count()

    plan = trades.preview(sold)

    assert (plan.side, plan.qty, plan.limit_price) == ("buy", 10, Decimal("60.3"))
    assert (plan.notional, plan.problem) == (603, "")
    assert (LedgerEntry.objects.count(), sent(sim)) == (entries, [])


def test_where_nothing_differs_any_more_there_is_nothing_to_trade(
    sim: SimulatorServer, sold: Break, proposer: User
) -> None:
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "10"})

    assert "differs any more" in trades.preview(sold).problem
    with pytest.raises(NotProposed, match="differs any more"):
        trades.propose(sold, by=proposer, reason="back")

    assert Correction.objects.filter(kind="trade").count() == 0


def test_only_shares_that_differ_are_restored_by_a_trade(
    sim: SimulatorServer, sold: Break, proposer: User
) -> None:
    for kind in ("average_price", "split", "cash"):
        sold.kind = kind

        with pytest.raises(NotProposed, match="No trade puts this right"):
            trades.propose(sold, by=proposer, reason="back")

    assert Correction.objects.filter(kind="trade").count() == 0


def test_without_a_reason_nothing_is_proposed(sold: Break, proposer: User) -> None:
    with pytest.raises(ValueError, match="reason"):
        trades.propose(sold, by=proposer, reason="  ")

    assert Correction.objects.filter(kind="trade").count() == 0


def test_an_ordinary_correction_is_no_business_of_a_trade(
    sim: SimulatorServer, sold: Break, approve: Approve
) -> None:
    done = approve(Correction.objects.get(status="proposed"))

    trades.carry_out(done.pk)

    assert sent(sim) == []
    assert Position.objects.get(symbol="KO").qty == 90
