"""What is read of the broker: more than can be read at once, more digits than are kept, a clock of
its own, holdings that are no shares, activities that come late; and what explains for how long."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.models import F

from ordinis.accounts.models import BrokerAccount
from ordinis.broker import alpaca
from ordinis.broker.errors import BrokerUnavailable
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import CashEntry, Position
from reconciliation import proposals, snapshots
from reconciliation.corrections import decide
from reconciliation.models import Break, BrokerActivity
from reconciliation.run import reconcile
from risk import figures
from tests.conftest import Api, hold, quote
from tests.reconciliation.conftest import make_break, waiting
from tests.reconciliation.test_adoption import broker_cash
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
Sim = SimulatorServer


def test_an_option_bought_in_the_app_does_not_stop_every_comparison(
    sim: Sim, book: BrokerAccount
) -> None:
    sim.post("/sim/symbol", {"symbol": "AAPL261218C00200000", "price": "5"})
    hold(sim, "AAPL261218C00200000", "1", "5")

    report = reconcile(book)

    assert (report.complete, report.orphans) == (True, ["AAPL261218C00200000"])


def test_an_option_that_is_held_from_the_start_does_not_keep_every_order_out(
    sim: Sim, account: BrokerAccount, api: Api, order: Callable[..., dict[str, Any]]
) -> None:
    sim.post("/sim/symbol", {"symbol": "AAPL261218C00200000", "price": "5"})
    hold(sim, "AAPL261218C00200000", "1", "5")

    assert api.post("/orders", order(qty="1")).status_code == 201


def test_a_correction_can_be_approved_where_the_average_price_has_twelve_decimals(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60.123456789123")
    make_break(book)

    decide(waiting().pk, "approve", user=approver, comment="sold")

    assert Position.objects.get(symbol="KO").qty == 90


def test_an_average_price_of_twelve_decimals_that_differs_is_found(
    sim: Sim, book: BrokerAccount
) -> None:
    hold(sim, "KO", "100", "70.123456789123")

    for _ in range(8):
        reconcile(book)

    assert Break.objects.get().kind == "average_price"


def test_more_fills_than_can_be_read_at_once_do_not_stop_comparisons_for_ever(
    sim: Sim, book: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca, "ACTIVITIES_PAGE", 2)
    monkeypatch.setattr(alpaca, "MOST_PAGES", 2)
    for _ in range(6):
        sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "1"})

    reports = [reconcile(book) for _ in range(5)]

    assert reports[-1].complete


def test_many_hand_trades_of_a_symbol_that_was_replaced_lately_do_not_stop_comparisons(
    sim: Sim, book: BrokerAccount, api: Api, order: Callable[..., dict[str, Any]], wide_limits: None
) -> None:
    quote(sim, "KO", "70")
    body = order(symbol="KO", qty="1", reference_price=None, limit_price="50")
    made = api.post("/orders", body).json()
    until(lambda: [o for o in sim.get("/sim/state")["orders"] if o["status"] == "new"])
    replaced = api.post(f"/orders/{made['id']}/replace", {"limit_price": "51"})
    assert replaced.status_code in (200, 201), replaced.content
    until(
        lambda: (
            reconcile(book).complete
            and [o for o in sim.get("/sim/state")["orders"] if o["status"] == "replaced"]
        )
    )
    for _ in range(21):
        sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "1"})

    reports = [reconcile(book) for _ in range(3)]

    assert [report.complete for report in reports] == [False, True, True]
    assert "1 more orders with fills may be ours" in reports[0].reason
    assert BrokerActivity.objects.count() == 21


def test_a_second_page_of_activities_that_is_lost_makes_no_cash_break(
    sim: Sim, book: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca, "ACTIVITIES_PAGE", 2)
    for _ in range(3):
        sim.post("/sim/activity", {"activity_type": "FEE", "net_amount": "-500"})
    fault = {"kind": "second_page_fails", "path": "/v2/account/activities", "count": 99}
    sim.post("/sim/faults", [fault])

    for _ in range(3):
        reconcile(book)

    assert Break.objects.count() == 0


def test_trades_outside_are_read_from_a_broker_whose_clock_is_three_minutes_behind(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    behind = figures.database_now() - timedelta(seconds=200)
    BrokerAccount.objects.update(opened_at=behind - timedelta(seconds=1))  # a while ago
    book.refresh_from_db()
    sim.post("/sim/clock", {"set": behind.isoformat()})
    reconcile(book)
    sim.post("/sim/trade", {"symbol": "OKE", "side": "buy", "qty": "1"})
    make_break(book)
    decide(waiting().pk, "approve", user=approver, comment="bought in the app")
    quote(sim, "KO", "60")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10"})

    row = make_break(book)

    assert row.explanation is not None
    assert cash_of(book.pk) == broker_cash(book)


def test_a_trade_outside_of_a_time_to_come_does_not_hide_those_that_follow(
    sim: Sim, book: BrokerAccount
) -> None:
    ahead = figures.database_now() + timedelta(hours=1)
    sim.post("/sim/clock", {"set": ahead.isoformat()})
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "1"})
    reconcile(book)
    sim.post("/sim/clock", {"set": (ahead - timedelta(minutes=10)).isoformat()})
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "1"})

    reconcile(book)

    assert BrokerActivity.objects.count() == 2


def test_a_fee_that_is_listed_after_its_cash_was_corrected_is_not_booked_twice(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    sim.post("/sim/activity", {"activity_type": "FEE", "net_amount": "-500"})
    sim.post("/sim/faults", [{"kind": "list_empty", "path": "/v2/account/activities", "count": 9}])
    row = make_break(book)
    assert row.kind == "cash"
    decide(waiting().pk, "approve", user=approver, comment="a fee, by telephone")
    assert cash_of(book.pk) == broker_cash(book)
    sim.delete("/sim/faults")
    hold(sim, "KO", "90", "60")  # whatever lets the activities be read again

    reconcile(book)

    assert cash_of(book.pk) == broker_cash(book)


def test_an_outside_sale_that_was_bought_back_does_not_explain_a_later_loss_of_shares(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "KO", "60")
    sim.post("/sim/trade", {"symbol": "KO", "side": "buy", "qty": "10", "price": "60"})
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10", "price": "60"})
    report = reconcile(book)
    assert report.differences == []  # book and broker agree
    hold(sim, "KO", "90", "60")  # ten shares are gone, and no money came for them

    row = make_break(book)

    assert row.explanation is None


def test_a_transfer_that_was_booked_does_not_explain_the_next_difference_too(
    sim: Sim, book: BrokerAccount, approver: User
) -> None:
    told = {"activity_type": "JNLS", "symbol": "KO", "qty": "5", "net_amount": "0"}
    sim.post("/sim/activity", told)
    hold(sim, "KO", "105", "60")
    row = make_break(book)
    assert row.explanation is not None
    assert row.explanation["code"] == "corporate_action"
    decide(waiting().pk, "approve", user=approver, comment="came in")
    hold(sim, "KO", "110", "60")  # five more, and nothing tells where from

    row = make_break(book)

    assert row.explanation is None


def _days_pass(days: int) -> None:
    """Moves what is known back in time; evidence is append-only."""
    past, table = timedelta(days=days), BrokerActivity._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
        BrokerActivity.objects.update(
            occurred_at=F("occurred_at") - past, recorded_at=F("recorded_at") - past
        )
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER append_only")
    Position.objects.update(agreed_at=F("agreed_at") - past)
    BrokerAccount.objects.update(
        books_as_of=F("books_as_of") - past, opened_at=F("opened_at") - past
    )
    Break.objects.update(first_seen=F("first_seen") - past, last_seen=F("last_seen") - past)


def test_a_trade_outside_keeps_its_price_while_it_waits_over_a_long_weekend(
    sim: Sim, book: BrokerAccount
) -> None:
    quote(sim, "KO", "70")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10", "price": "70"})
    make_break(book)
    assert waiting().price == 70
    _days_pass(4)
    proposals.expire(figures.database_now() + timedelta(days=4))

    reconcile(book)

    assert waiting().price == 70


def test_a_dry_run_does_not_take_over_a_book_that_was_never_opened(
    sim: Sim, account: BrokerAccount
) -> None:
    reconcile(account, dry_run=True)

    account.refresh_from_db()
    assert account.opened_at is None


def test_a_dry_run_books_nothing(sim: Sim, book: BrokerAccount) -> None:
    before = cash_of(book.pk)
    quote(sim, "TSLA", "250")
    sim.post("/sim/trade", {"symbol": "TSLA", "side": "buy", "qty": "7"})

    reconcile(book, dry_run=True)

    assert cash_of(book.pk) == before


def test_a_dry_run_tells_of_trades_outside_what_they_explain(sim: Sim, book: BrokerAccount) -> None:
    quote(sim, "KO", "70")
    sim.post("/sim/trade", {"symbol": "KO", "side": "sell", "qty": "10", "price": "70"})

    taken = snapshots.take(book, dry_run=True)

    assert [(each.qty, each.price) for each in taken.facts.trades["KO"]] == [(-10, 70)]
    assert taken.unbooked == 700
    assert not BrokerActivity.objects.exists()
    assert not CashEntry.objects.filter(kind="external_trade").exists()


def test_a_dry_reading_of_a_book_that_was_never_opened_says_what_to_do(
    sim: Sim, account: BrokerAccount
) -> None:
    with pytest.raises(BrokerUnavailable, match="run without --dry-run once"):
        snapshots.take(account, dry_run=True)

    account.refresh_from_db()
    assert account.opened_at is None


@pytest.mark.parametrize("path", ["/v2/account/activities.*", "/v2/positions/.*"])
def test_a_broker_without_such_an_address_is_compared_by_its_lists(
    sim: SimulatorServer, book: BrokerAccount, approver: User, path: str
) -> None:
    sim.post("/sim/faults", {"kind": "html_before", "status": 404, "path": path, "count": None})
    sim.post("/sim/close", {"symbol": "OKE"})

    row = make_break(book)
    decide(waiting().pk, "approve", user=approver, comment="sold in the app")

    assert row.kind == "zombie"
    report = reconcile(book)
    assert (report.complete, report.differences_count) == (True, 0)
    assert list(violations()) == []


def test_without_an_answer_for_one_position_nothing_is_corrected_by_itself(
    sim: SimulatorServer, book: BrokerAccount
) -> None:
    wide = ("auto_correct_max_value=100000", "auto_correct_max_qty=1000")
    call_command("limits", "reconcile_mode=automatic", *wide, "--reason", "small desk")
    path = "/v2/positions/.*"
    sim.post("/sim/faults", {"kind": "html_before", "status": 404, "path": path, "count": None})
    sim.post("/sim/close", {"symbol": "OKE"})

    row = make_break(book)

    assert (row.kind, row.quiet, row.status) == ("zombie", False, "correcting")
    assert Position.objects.get(symbol="OKE").qty == 40
