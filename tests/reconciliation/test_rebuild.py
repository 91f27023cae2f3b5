"""The book taken over from the broker anew: by a person, all or nothing, the old book kept; and
fills that turn up late count once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from orders import jobs, lifecycle, statuses
from orders.lifecycle import Origin, Source
from orders.models import Fill, Order
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import ExecutionReport, OrderReport
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import rebuild as rebuilding
from reconciliation import run, trades
from reconciliation.models import Break, BrokerActivity, Correction, Rebuild, Suspect
from reconciliation.rebuild import NotRebuilt, preview, rebuild
from reconciliation.run import reconcile
from risk import figures, trading
from risk.states import ACTIVE, HALTED
from tests.conftest import Api, hold, quote
from tests.reconciliation.comparing import under_way
from tests.reconciliation.conftest import make_break
from tests.reconciliation.killing import killed
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("wide_limits"),
]
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture
def halted(book: BrokerAccount) -> BrokerAccount:
    trading.set_state(book.pk, HALTED, reason="the books are wrong", actor="ann")
    return book


@pytest.fixture
def chaos(sim: SimulatorServer, halted: BrokerAccount) -> BrokerAccount:
    """The broker holds something else altogether: KO less, OKE gone, TSLA short, XOM dearer."""
    sim.post("/sim/reset", {})
    sim.post("/sim/price", {"hold": True})
    hold(sim, "KO", "90", "61.5")
    hold(sim, "TSLA", "-5", "250")
    sim.post("/sim/account", {"cash": "54321.09"})
    return halted


def do(account: BrokerAccount, **changes: str) -> Rebuild:
    said = {"typed": "main", "actor": "ann", "reason": "the paper account was reset"}
    return rebuild(account, **{**said, **changes})


def held() -> dict[str, tuple[Decimal, Decimal | None]]:
    rows = Position.objects.exclude(qty=0)
    return {row.symbol: (row.qty, row.average_price) for row in rows}


def book_as_it_is() -> tuple[int, int, dict[str, tuple[Decimal, Decimal | None]]]:
    return LedgerEntry.objects.count(), CashEntry.objects.count(), held()


def test_the_book_becomes_what_the_broker_says_and_the_old_one_stays_in_the_ledger(
    chaos: BrokerAccount,
) -> None:
    before = BrokerAccount.objects.get().books_as_of

    row = do(chaos)

    assert held() == {"KO": (90, Decimal("61.5")), "TSLA": (-5, 250)}
    assert set(Position.objects.values_list("realized_profit", flat=True)) == {0}
    after = BrokerAccount.objects.get().books_as_of
    assert before is not None
    assert after is not None
    assert after > before
    assert cash_of(chaos.pk) == Decimal("54321.09")
    entries = LedgerEntry.objects.filter(kind="correction").order_by("cause")
    assert [(entry.cause, entry.qty) for entry in entries] == [
        (f"rebuild/{row.pk}/KO", -10),
        (f"rebuild/{row.pk}/OKE", -40),
        (f"rebuild/{row.pk}/TSLA", -5),
    ]
    assert LedgerEntry.objects.filter(kind="opening").count() == 2
    assert Position.objects.get(symbol="OKE").closed_reason == "corrected"
    assert list(violations()) == []


def test_a_rebuild_says_who_why_and_what_changed(chaos: BrokerAccount) -> None:
    row = do(chaos)

    assert (row.actor, row.reason) == ("ann", "the paper account was reset")
    assert row.changes[1] == {
        "symbol": "OKE",
        "before": "40",
        "after": "0",
        "average_price_before": "70",
        "average_price_after": None,
    }
    assert (row.cash_before, row.cash_after) == (1000000, Decimal("54321.09"))


def test_after_a_rebuild_nothing_differs_and_what_was_open_is_resolved(
    sim: SimulatorServer, halted: BrokerAccount
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(halted)
    hold(sim, "OKE", "35", "70")
    reconcile(halted)
    assert Suspect.objects.count() == 1

    do(halted)

    row.refresh_from_db()
    assert row.status == "resolved"
    last = row.events.last()
    assert last is not None
    assert (last.actor, "rebuilt" in last.text) == ("ann", True)
    assert Correction.objects.get().status == "superseded"
    assert Suspect.objects.count() == 0
    report = reconcile(halted)
    assert (report.complete, report.differences) == (True, [])
    assert list(violations()) == []


def test_a_trade_outside_just_before_a_rebuild_is_not_paid_for_twice(
    sim: SimulatorServer, halted: BrokerAccount
) -> None:
    quote(sim, "TSLA", "250")
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "7"})
    do(halted)

    report = reconcile(halted)

    assert report.differences == []
    assert cash_of(halted.pk) == figures.ask(halted).account.cash
    assert BrokerActivity.objects.get().amount == -1750  # kept as evidence


def test_only_what_differs_gets_an_entry(sim: SimulatorServer, halted: BrokerAccount) -> None:
    hold(sim, "KO", "100", "62")

    row = do(halted)

    assert [change["symbol"] for change in row.changes] == ["KO"]
    entry = LedgerEntry.objects.get(kind="correction")
    assert (entry.qty, entry.average_price_after) == (0, 62)
    assert Position.objects.get(symbol="KO").average_price == 62
    assert list(violations()) == []


def test_a_rebuild_of_a_book_that_agrees_changes_nothing(halted: BrokerAccount) -> None:
    before = book_as_it_is()

    row = do(halted)

    assert (row.changes, row.cash_before) == ([], row.cash_after)
    assert book_as_it_is() == before


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"typed": "Main"}, "Type the account's name, main"),
        ({"typed": ""}, "Type the account's name"),
        ({"reason": "  "}, "a reason is required"),
    ],
)
def test_without_the_name_typed_and_a_reason_nothing_is_rebuilt(
    chaos: BrokerAccount, said: dict[str, str], why: str
) -> None:
    before = book_as_it_is()

    with pytest.raises(NotRebuilt, match=why):
        do(chaos, **said)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_while_trading_is_not_halted_nothing_is_rebuilt(chaos: BrokerAccount) -> None:
    trading.set_state(chaos.pk, ACTIVE, reason="go on", actor="ann")
    before = book_as_it_is()

    assert "Halt trading" in preview(chaos).problem
    with pytest.raises(NotRebuilt, match="Halt trading"):
        do(chaos)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_while_the_outcome_of_an_order_is_unknown_nothing_is_rebuilt(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    api.post("/orders", order(client_order_id="lost-1"))
    Order.objects.update(status=statuses.UNRESOLVED)
    trading.set_state(book.pk, HALTED, reason="stop", actor="ann")
    before = book_as_it_is()

    with pytest.raises(NotRebuilt, match="lost-1 is not known yet"):
        do(book)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_right_after_a_fill_nothing_is_rebuilt_since_positions_may_lag(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder, settings: LazySettings
) -> None:
    settings.SECOND_LOOK_SECONDS = 10
    quote(sim, "TSLA", "249")
    api.post("/orders", order())
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "filled"])
    jobs.poll()
    trading.set_state(book.pk, HALTED, reason="stop", actor="ann")

    with pytest.raises(NotRebuilt, match="may lag"):
        do(book)

    assert Rebuild.objects.count() == 0


def test_a_broker_that_can_not_be_read_lets_nothing_be_rebuilt(
    sim: SimulatorServer, chaos: BrokerAccount
) -> None:
    before = book_as_it_is()
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/positions", "count": 9}])

    with pytest.raises(NotRebuilt, match="Nothing was changed"):
        do(chaos)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


@pytest.mark.parametrize("point", ["rebuild.booked", "rebuild.before_commit"])
def test_a_rebuild_that_is_killed_half_way_changes_nothing(
    sim: SimulatorServer, chaos: BrokerAccount, point: str
) -> None:
    before = book_as_it_is()

    assert killed("rebuild", chaos.pk, broker=sim.url, at=point)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)
    do(chaos)
    assert held() == {"KO": (90, Decimal("61.5")), "TSLA": (-5, 250)}
    assert list(violations()) == []


def test_nothing_is_rebuilt_while_a_comparison_is_under_way(
    chaos: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = book_as_it_is()
    monkeypatch.setattr(run, "_LONGEST_WAIT", 1)

    with under_way(chaos), pytest.raises(NotRebuilt, match="under way"):
        do(chaos)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_two_at_the_same_moment_do_not_book_a_change_twice(chaos: BrokerAccount) -> None:
    def press(_: int) -> int:
        try:
            return len(do(chaos).changes)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        changed = sorted(pool.map(press, range(4)))

    assert changed == [0, 0, 0, 3]
    assert held() == {"KO": (90, Decimal("61.5")), "TSLA": (-5, 250)}
    assert list(violations()) == []


def test_a_fill_that_is_booked_while_the_broker_is_read_starts_it_again(
    sim: SimulatorServer,
    book: BrokerAccount,
    api: Api,
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger is compared with the one that was read: what came meanwhile is not undone."""
    sim.post("/sim/options", {"fill_delay": 3600})
    quote(sim, "TSLA", "250")
    api.post("/orders", order(qty="10"))
    jobs.poll()
    trading.set_state(book.pk, HALTED, reason="stop", actor="ann")
    hold(sim, "KO", "90", "60")
    asked, looked = rebuilding._open_orders, []

    def fills_meanwhile(account: BrokerAccount) -> Any:
        told = asked(account)
        looked.append(told)
        if len(looked) == 2:
            broker_id = Order.objects.get().broker_order_id
            sim.post("/sim/fill", {"id": broker_id, "price": "250"})
            jobs.poll()
        return told

    monkeypatch.setattr(rebuilding, "_open_orders", fills_meanwhile)

    row = do(book)

    assert len(looked) == 4
    assert [change["symbol"] for change in row.changes] == ["KO"]
    assert held()["TSLA"] == (10, 250)
    assert list(violations()) == []


def test_an_order_that_appears_while_the_broker_is_read_starts_it_again(
    sim: SimulatorServer, chaos: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moved may be in the positions or not: only figures of a still moment are taken over."""
    body = {"symbol": "KO", "side": "buy", "qty": "1", "type": "limit", "limit_price": "1"}
    asked, looked = rebuilding._open_orders, []

    def placed_meanwhile(account: BrokerAccount) -> Any:
        looked.append(told := asked(account))
        if len(looked) == 1:
            sim.trading("POST", "/v2/orders", json={**body, "time_in_force": "day"})
            until(lambda: sim.get("/sim/state")["orders"][0]["status"] == "new")
        return told

    monkeypatch.setattr(rebuilding, "_open_orders", placed_meanwhile)

    do(chaos)

    assert len(looked) == 4
    assert held()["KO"] == (90, Decimal("61.5"))


def test_a_preview_waits_for_fills_that_are_not_booked_yet(
    sim: SimulatorServer, open_order: Order
) -> None:
    sim.post("/sim/fill", {"id": open_order.broker_order_id, "qty": "4", "price": "59"})

    assert "being booked" in preview(open_order.account).problem
    assert Fill.objects.count() == 0
    jobs.poll()

    plan = preview(open_order.account)
    assert (plan.problem, plan.changes) == ("", ())


def test_an_account_that_never_stands_still_is_not_rebuilt(
    sim: SimulatorServer, chaos: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "_is_behind", lambda *_: True)
    before = book_as_it_is()

    with pytest.raises(NotRebuilt, match="kept moving"):
        do(chaos)

    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_an_approved_trade_that_was_not_sent_before_a_rebuild_is_never_sent(
    sim: SimulatorServer, halted: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(halted)
    trade = trades.propose(row, by=approver, reason="back")
    Correction.objects.filter(pk=trade.pk).update(
        status="applied",
        decided_by=User.objects.create_superuser("other"),
        decided_at=figures.database_now(),
        client_order_id=f"restore-{trade.pk}",
    )

    do(halted)
    trading.set_state(halted.pk, ACTIVE, reason="go on", actor="ann")
    trades.pursue()

    trade.refresh_from_db()
    assert trade.order is None
    assert "facts moved" in trade.problem
    assert Order.objects.count() == 0


def test_a_preview_shows_what_would_change_and_changes_nothing(chaos: BrokerAccount) -> None:
    before = book_as_it_is()

    plan = preview(chaos)

    assert plan.problem == ""
    assert [(each.symbol, each.before, each.after) for each in plan.changes] == [
        ("KO", 100, 90),
        ("OKE", 40, 0),
        ("TSLA", 0, -5),
    ]
    assert (plan.cash_before, plan.cash_after) == (1000000, Decimal("54321.09"))
    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)


def test_a_book_that_was_never_opened_is_not_rebuilt(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    trading.set_state(account.pk, HALTED, reason="stop", actor="ann")

    with pytest.raises(NotRebuilt, match="never opened"):
        do(account)

    assert LedgerEntry.objects.count() == 0


# --- the command -------------------------------------------------------------------------------


def test_the_command_shows_first_and_rebuilds_when_the_name_is_confirmed(
    chaos: BrokerAccount,
) -> None:
    before = book_as_it_is()

    shown = _told("rebuild", "--account", "main", "--reason", "reset")
    assert "KO: 100 at 60 becomes 90 at 61.5" in shown
    assert "--confirm main" in shown
    _told("rebuild", "--account", "main", "--reason", "reset", "--confirm", "main", "--dry-run")
    assert (book_as_it_is(), Rebuild.objects.count()) == (before, 0)
    done = _told("rebuild", "--account", "main", "--reason", "reset", "--confirm", "main")

    assert "3 positions changed" in done
    assert Rebuild.objects.get().actor.startswith("command line (")


def test_the_command_refuses_another_name_and_an_unknown_account(chaos: BrokerAccount) -> None:
    with pytest.raises(CommandError, match="Type the account's name"):
        _told("rebuild", "--account", "main", "--reason", "reset", "--confirm", "other")
    with pytest.raises(CommandError, match="There is no account 'other'"):
        _told("rebuild", "--account", "other", "--reason", "reset")

    assert Rebuild.objects.count() == 0


def test_the_command_says_why_it_can_not_be_done_now(book: BrokerAccount) -> None:
    with pytest.raises(CommandError, match="It can't be done now"):
        _told("rebuild", "--account", "main")


def _told(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


# --- fills that turn up late -------------------------------------------------------------------


@pytest.fixture
def open_order(sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder) -> Order:
    """A buy of 10 KO that is open when the book is taken over anew."""
    quote(sim, "KO", "60")
    sim.post("/sim/options", {"fill_delay": 3600})
    body = order(symbol="KO", qty="10", type="limit", limit_price="59", reference_price=None)
    assert api.post("/orders", body).status_code < 300
    jobs.poll()
    trading.set_state(book.pk, HALTED, reason="the books are wrong", actor="ann")
    return Order.objects.get()


def fill_of(order: Order, *, seconds: float) -> OrderReport:
    """All 10 shares at 59, so many seconds after the last rebuild's figures were asked for."""
    entry = LedgerEntry.objects.filter(kind="correction").latest("pk")
    at = entry.occurred_at + timedelta(seconds=seconds)
    return OrderReport(
        broker_order_id=order.broker_order_id or "",
        client_order_id=order.client_order_id,
        symbol="KO",
        side="buy",
        qty=Decimal(10),
        type="limit",
        time_in_force="day",
        limit_price=Decimal(59),
        stop_price=None,
        status="filled",
        filled_qty=Decimal(10),
        average_fill_price=Decimal(59),
        updated_at=at,
        execution=ExecutionReport(
            execution_id="e" * 80, qty=Decimal(10), price=Decimal(59), occurred_at=at
        ),
        raw={},
    )


def tell(order: Order, report: OrderReport) -> None:
    for _ in range(2):  # the same again changes nothing
        lifecycle.observe(order.pk, report, Origin(Source.STREAM, "broker"))


def test_a_fill_from_before_a_rebuild_is_booked_together_with_what_reverses_it(
    sim: SimulatorServer, open_order: Order
) -> None:
    """The broker's figures had it: the quantity, the average and the cash stay what they said."""
    hold(sim, "KO", "110", "59.9")
    sim.post("/sim/account", {"cash": "999410"})
    do(open_order.account)

    tell(open_order, fill_of(open_order, seconds=-0.01))

    assert held()["KO"] == (110, Decimal("59.9"))
    assert Position.objects.get(symbol="KO").realized_profit == 0
    assert cash_of(open_order.account_id) == 999410
    assert Fill.objects.get().qty == 10
    assert Order.objects.get().status == "filled"
    booked = list(LedgerEntry.objects.filter(position__symbol="KO").order_by("seq"))
    assert [(entry.kind, entry.qty) for entry in booked[-2:]] == [("fill", 10), ("correction", -10)]
    assert booked[-1].cause == f"{open_order.pk}/{booked[-2].seq}/reversed"
    assert list(violations()) == []


def test_where_the_brokers_positions_lagged_the_next_comparison_finds_it(
    sim: SimulatorServer, open_order: Order
) -> None:
    hold(sim, "KO", "99", "60")  # and not the 109 that they would be with the fill
    do(open_order.account)
    tell(open_order, fill_of(open_order, seconds=-0.01))
    hold(sim, "KO", "109", "60")

    row = reconcile(open_order.account).differences

    assert held()["KO"] == (99, 60)
    assert [each["symbol"] for each in row if each["symbol"]] == ["KO"]
    assert list(violations()) == []


def test_a_fill_from_after_a_rebuild_is_booked_as_any_other(
    sim: SimulatorServer, open_order: Order
) -> None:
    hold(sim, "KO", "90", "60")
    sim.post("/sim/account", {"cash": "5000"})
    do(open_order.account)

    tell(open_order, fill_of(open_order, seconds=0.01))

    assert held()["KO"][0] == 100
    assert cash_of(open_order.account_id) == 5000 - 590
    assert LedgerEntry.objects.filter(cause__endswith="/reversed").count() == 0
    assert CashEntry.objects.filter(cause__endswith="/reversed").count() == 0
    assert list(violations()) == []


def test_a_fill_of_an_order_from_after_a_rebuild_is_no_late_one_whatever_its_clock_says(
    sim: SimulatorServer, open_order: Order
) -> None:
    hold(sim, "KO", "90", "60")
    sim.post("/sim/account", {"cash": "5000"})
    do(open_order.account)
    Order.objects.update(created_at=figures.database_now())

    tell(open_order, fill_of(open_order, seconds=-0.01))

    assert held()["KO"][0] == 100
    assert cash_of(open_order.account_id) == 5000 - 590
    assert LedgerEntry.objects.filter(cause__endswith="/reversed").count() == 0


def test_a_correction_of_the_average_price_alone_makes_no_fill_late(
    sim: SimulatorServer, open_order: Order
) -> None:
    """The shares agreed without the fill, so the broker's figures did not have it."""
    hold(sim, "KO", "100", "62")
    do(open_order.account)

    tell(open_order, fill_of(open_order, seconds=-0.01))

    assert held()["KO"][0] == 110
    assert LedgerEntry.objects.filter(cause__endswith="/reversed").count() == 0


def test_a_late_sale_that_the_rebuild_had_closed_stays_closed_and_has_earned(
    sim: SimulatorServer, book: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "KO", "60")
    sim.post("/sim/options", {"fill_delay": 3600})
    body = order(symbol="KO", side="sell", qty="10", type="limit", limit_price="61")
    api.post("/orders", {name: value for name, value in body.items() if name != "reference_price"})
    jobs.poll()
    sold = Order.objects.get()
    trading.set_state(book.pk, HALTED, reason="stop", actor="ann")
    hold(sim, "KO", "90", "60")
    do(book)

    report = fill_of(sold, seconds=-0.01)
    tell(sold, _sale(report))

    position = Position.objects.get(symbol="KO")
    assert (position.qty, position.average_price, position.realized_profit) == (90, 60, 10)
    assert list(violations()) == []


def _sale(report: OrderReport) -> OrderReport:
    assert report.execution is not None
    return replace(
        report,
        side="sell",
        limit_price=Decimal(61),
        average_fill_price=Decimal(61),
        execution=replace(report.execution, price=Decimal(61)),
    )


def test_breaks_about_orders_outlive_a_rebuild(sim: SimulatorServer, halted: BrokerAccount) -> None:
    body = {
        "symbol": "KO",
        "side": "buy",
        "qty": "1",
        "type": "limit",
        "time_in_force": "day",
        "limit_price": "1.00",
    }
    sim.trading("POST", "/v2/orders", json=body)
    reconcile(halted)
    reconcile(halted)

    do(halted)

    assert Break.objects.get(kind="order_external").is_open


def test_a_rebuild_does_not_believe_an_empty_list_of_positions(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    trading.set_state(book.pk, "halted", reason="emergency", actor="ann")
    sim.post("/sim/faults", {"kind": "list_empty", "path": "/v2/positions", "count": None})

    assert "lists no position" in preview(book).problem
    with pytest.raises(NotRebuilt, match="lists no position"):
        rebuild(book, typed="main", actor="ann", reason="the book is wrong")

    assert {row.symbol: row.qty for row in Position.objects.all()} == {"KO": 100, "OKE": 40}


def test_a_rebuild_does_not_believe_a_list_that_leaves_one_out(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    trading.set_state(book.pk, "halted", reason="emergency", actor="ann")
    sim.post("/sim/faults", {"kind": "list_omit", "path": "/v2/positions", "count": None})

    with pytest.raises(NotRebuilt, match="do not agree"):
        rebuild(book, typed="main", actor="ann", reason="the book is wrong")

    assert {row.symbol: row.qty for row in Position.objects.all()} == {"KO": 100, "OKE": 40}
