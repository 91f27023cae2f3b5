"""Reports of comparisons, the broker's answers they rest on, what a correction's page tells, and
the emergency rebuild: what they show, who may do what, that no look changes anything."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from ordinis.accounts.models import BrokerAccount
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import snapshots
from reconciliation.models import (
    Break,
    Correction,
    Kind,
    Rebuild,
    ReconciliationReport,
    Snapshot,
    Suspect,
)
from reconciliation.run import reconcile
from risk import trading
from tests.conftest import hold
from tests.console.conftest import Browse, broken, held, waiting, words
from tests.console.test_queries import queries
from tests.simulator_server import SimulatorServer

real = pytest.mark.django_db(transaction=True)
REPORTS = "/reconciliation/reconciliationreport/"
SNAPSHOTS = "/reconciliation/snapshot/"
CORRECTIONS = "/reconciliation/correction/"
REBUILD = "/reconciliation/rebuild/now/"


def shown(client: Client, path: str, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content
    return words(answer.content.decode())


def report(account: BrokerAccount, **values: Any) -> ReconciliationReport:
    given = {
        "mode": "manual",
        "complete": True,
        "started_at": timezone.now(),
        "duration_seconds": Decimal("0.412"),
        "broker_seconds": Decimal("0.398"),
        **values,
    }
    return ReconciliationReport.objects.create(account=account, **given)


def a_difference(**values: Any) -> dict[str, Any]:
    return {
        "kind": "quantity",
        "subject": "position/AAPL",
        "symbol": "AAPL",
        "local": "100",
        "broker": "60",
        "value": "8400",
        "explanation": "Sold by hand.",
        **values,
    }


def did(action: str, subject: str = "position/AAPL") -> dict[str, str]:
    symbol = subject.partition("position/")[2]
    return {
        "subject": subject,
        "symbol": symbol,
        "kind": "quantity",
        "action": action,
        "words": "",
    }


# --- reports ------------------------------------------------------------------------------------


def test_a_report_tells_every_difference_what_explains_it_and_what_was_done(
    browse: Browse, account: BrokerAccount
) -> None:
    row = report(
        account,
        source="second_look",
        differences_count=5,
        differences=[
            a_difference(),
            a_difference(kind="cash", subject="account/cash", symbol="", explanation=""),
            a_difference(kind="order_status", subject="order/b-1", local="new", broker="canceled"),
            a_difference(kind="mass", subject="account/positions", symbol="", explanation=""),
        ],
        actions=[did("opened"), did("proposed"), did("healed", "position/KO")],
    )

    page = shown(browse("Viewer"), f"{REPORTS}{row.pk}/change/")

    assert (
        "AAPL Quantity 100 60 $8,400.00 A break was opened; A correction was proposed Sold by hand."
    ) in page
    assert "Cash Cash $100.00 $60.00 $8,400.00 – –" in page
    assert "AAPL Order status New Cancelled" in page
    assert "KO Quantity – – – Healed: both sides agree again –" in page
    assert "Positions Mass difference 100 compared 60 agree $8,400.00 – –" in page
    assert "5 differences were counted; the first 4 are kept." in page
    assert "412 ms, of it asking the broker 398 ms" in page
    assert "Asked for by A second look" in page
    assert "5 differences" in page


def test_a_dry_run_says_what_would_be_done_and_nothing_else(
    browse: Browse, account: BrokerAccount
) -> None:
    row = report(
        account,
        dry_run=True,
        differences_count=1,
        differences=[a_difference()],
        actions=[did("opened"), did("healed", "position/KO")],
    )

    page = shown(browse("Viewer"), f"{REPORTS}{row.pk}/change/")

    assert "Would open a break" in page
    assert "Would heal" in page
    assert "A break was opened" not in page


def test_what_a_report_stores_is_never_markup(browse: Browse, account: BrokerAccount) -> None:
    evil = "<script>alert(1)</script>"
    row = report(
        account,
        reason=evil,
        actor=evil,
        critical_issues=[evil],
        differences=[a_difference(symbol=evil, explanation=evil, kind=evil, local=evil)],
        actions=[did(evil)],
        order_breaks=[{"kind": evil, "symbol": evil, "local": evil, "broker": "1", "order": None}],
    )
    page = browse("Viewer").get(f"{REPORTS}{row.pk}/change/").content.decode()

    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 6


def test_reports_are_filtered_by_result_and_by_who_asked(
    browse: Browse, account: BrokerAccount
) -> None:
    equal = report(account)
    apart = report(account, differences_count=2, source="api")
    incomplete = report(account, complete=False, reason="Page 2 was lost.")
    client = browse("Viewer")

    def found(**query: str) -> set[int]:
        page = client.get(REPORTS, query).content.decode()
        return {row.pk for row in (equal, apart, incomplete) if f"{REPORTS}{row.pk}/" in page}

    assert found() == {equal.pk, apart.pk, incomplete.pk}
    assert found(result="differences") == {apart.pk}
    assert found(result="equal") == {equal.pk}
    assert found(result="incomplete") == {incomplete.pk}
    assert found(source="api") == {apart.pk}


@real
def test_a_comparison_from_the_page_is_marked_with_the_person_and_a_dry_run_keeps_nothing(
    sim: SimulatorServer, settings: LazySettings, account: BrokerAccount, browse: Browse
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "AAPL", "100", "210")
    client = browse("Operator")
    client.post(f"{REPORTS}run/", {"account": account.pk})
    hold(sim, "AAPL", "60", "210")

    dry = client.post(f"{REPORTS}run/", {"account": account.pk, "dry_run": "yes"}, follow=True)
    kept_by_dry_run = Suspect.objects.exists()
    client.post(f"{REPORTS}run/", {"account": account.pk})

    page = words(dry.content.decode())
    assert "Dry run" in page
    assert "Would be looked at again" in page
    assert not kept_by_dry_run
    made = ReconciliationReport.objects.order_by("pk")
    assert [(row.source, row.actor, row.dry_run) for row in made] == [
        ("console", "operator", False),
        ("console", "operator", True),
        ("console", "operator", False),
    ]
    assert Suspect.objects.exists()


@real
def test_who_may_not_compare_sees_no_button_and_gets_403_and_a_get_is_no_run(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    row = report(account)
    viewer, operator = browse("Viewer"), browse("Operator")

    for path in (REPORTS, f"{REPORTS}{row.pk}/change/"):
        assert f'action="{REPORTS}run/"' not in viewer.get(path).content.decode()
        assert f'action="{REPORTS}run/"' in operator.get(path).content.decode()
    assert viewer.post(f"{REPORTS}run/", {"account": account.pk}).status_code == 403
    assert operator.get(f"{REPORTS}run/").status_code == 405
    for wrong in ("", "x", "9" * 40, "999999"):
        operator.post(f"{REPORTS}run/", {"account": wrong})
    assert ReconciliationReport.objects.count() == 1


# --- the broker's answers -----------------------------------------------------------------------


@real
def test_the_raw_evidence_is_downloaded_by_who_may_see_it_with_secrets_blotted_out(
    sim: SimulatorServer,
    account: BrokerAccount,
    browse: Browse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold(sim, "AAPL", "100", "210")
    first = reconcile(account).snapshot
    again = reconcile(account).snapshot
    assert first is not None
    assert again is not None
    assert again.same_as == first
    number = snapshots.evidence_of(first)["account"]["account_number"]  # type: ignore[index]
    monkeypatch.setenv("APCA_API_SECRET_KEY", number)  # as if the broker had echoed a secret
    client = browse("Viewer")

    for row in (first, again):
        page = shown(client, f"{SNAPSHOTS}{row.pk}/change/")
        answer = client.get(f"{SNAPSHOTS}{row.pk}/evidence/")

        assert row.digest in page
        assert "Download the raw evidence" in page
        assert answer.headers["Content-Type"].startswith("application/json")
        assert "attachment" in answer.headers["Content-Disposition"]
        body = answer.content.decode()
        assert json.loads(body)["positions"][0]["symbol"] == "AAPL"
        assert number not in body


def test_who_may_not_see_snapshots_downloads_nothing(
    browse: Browse, account: BrokerAccount
) -> None:
    row = Snapshot.objects.create(
        account=account, asked_at=timezone.now(), complete=True, evidence=b"x"
    )
    client = browse()

    for path in (SNAPSHOTS, f"{SNAPSHOTS}{row.pk}/change/", f"{SNAPSHOTS}{row.pk}/evidence/"):
        assert client.get(path).status_code == 403, path


def test_evidence_that_is_not_kept_any_more_says_so(browse: Browse, account: BrokerAccount) -> None:
    row = Snapshot.objects.create(account=account, asked_at=timezone.now(), complete=True)
    client = browse("Viewer")

    assert "not kept any more; the digest stays" in shown(client, f"{SNAPSHOTS}{row.pk}/change/")
    assert client.get(f"{SNAPSHOTS}{row.pk}/evidence/").status_code == 404


def test_a_list_of_snapshots_never_reads_their_bodies(
    browse: Browse, account: BrokerAccount
) -> None:
    for _ in range(5):
        Snapshot.objects.create(
            account=account, asked_at=timezone.now(), complete=True, evidence=b"x"
        )

    asked = queries(browse("Viewer"), SNAPSHOTS)

    assert not [sql for sql in asked if '"evidence"' in sql]
    assert len(asked) <= 12


# --- a correction's page ------------------------------------------------------------------------


def with_equity(correction: Correction) -> None:
    """21 % of equity in AAPL, and as much again in KO."""
    BrokerAccount.objects.update(equity=Decimal(100_000))
    held(correction.account, "KO", "100", broker="50")


def test_a_correction_tells_what_it_changes_in_book_exposure_limits_and_profit(
    browse: Browse, correction: Correction
) -> None:
    with_equity(correction)
    Correction.objects.update(price=Decimal("215"))

    page = shown(browse("Approver"), f"{CORRECTIONS}{correction.pk}/decide/")

    assert "AAPL in our book, shares 100 60" in page
    assert (
        "Exposure in AAPL $21,000.00 (21.0 % of equity) $12,600.00 (12.6 % of equity) "
        "5 % of equity Above"
    ) in page
    assert (
        "Exposure of everything held $42,000.00 (42.0 % of equity) $33,600.00 (33.6 % of equity) "
        "150 % of equity"
    ) in page
    assert "150 % of equity Above" not in page
    assert "Realised profit (they went at $215.00) $0.00 +$200.00 (+$200.00)" in page
    assert (
        "Reconcile mode manual; Corrects by itself up to, in dollars 100; Corrects by itself up "
        "to, in shares 1."
    ) in page
    assert "Its size: $8,400.00" in page


def test_without_a_price_no_profit_is_promised(browse: Browse, correction: Correction) -> None:
    page = shown(browse("Approver"), f"{CORRECTIONS}{correction.pk}/decide/")

    assert "Realised profit" not in page
    assert "no profit or loss is booked for them" in page


def test_the_figures_shown_are_the_last_known_ones_with_their_age(
    browse: Browse, correction: Correction
) -> None:
    now = timezone.now()
    Position.objects.update(
        broker_qty=Decimal(55), broker_as_of=now + timedelta(seconds=1), updated_at=now
    )

    page = shown(browse("Approver"), f"{CORRECTIONS}{correction.pk}/decide/")

    assert "Last known: our book 100 (changed 0 s ago ) , the broker 55 (read 0 s ago )" in page
    assert "The broker's figure has moved since this was proposed: it now says 55." in page


def test_a_book_that_moved_is_said_too(browse: Browse, correction: Correction) -> None:
    Position.objects.update(qty=Decimal(90), ledger_version=2)

    page = shown(browse("Approver"), f"{CORRECTIONS}{correction.pk}/decide/")

    assert "Our book has moved since this was proposed: it now says 90." in page


OTHER_KINDS: list[tuple[str, str, dict[str, Any], list[str]]] = [
    (
        Kind.CASH,
        "cash",
        {"position": None},
        [
            "Cash $100.00 $60.00 −$40.00",
            "Cash in our book $100.00 $60.00",
            "Approve: add −$40.00 to our cash",
            "Decide correction",
            "one cash entry",
        ],
    ),
    (
        Kind.SPLIT,
        "split",
        {"broker": Decimal(200), "broker_average_price": Decimal(105)},
        [
            "Shares 100 200 +100",
            "Average price $210.00 $105.00 −$105.00",
            "AAPL in our book, shares 100 200",
            "Approve: book the split, +100 AAPL",
            "A 2:1 split (new for old)",
        ],
    ),
    (
        Kind.AVERAGE_PRICE,
        "average_price",
        {"broker": Decimal(100), "broker_average_price": Decimal("211.5")},
        [
            "Average price $210.00 $211.50 +$1.50",
            "Cost of the position $21,000.00 $21,150.00",
            "Approve: take over $211.50 for AAPL",
        ],
    ),
    (
        Kind.QUANTITY,
        "trade",
        {"price": Decimal("211.05")},
        [
            "Approving it SENDS AN ORDER to the broker: buy 40 AAPL",
            "The limit was $211.05 when this was proposed",
            "Approve: SEND AN ORDER to buy 40 AAPL",
            "Shares at the broker 60 100",
        ],
    ),
]


@pytest.mark.parametrize(("kind", "does", "values", "expected"), OTHER_KINDS)
def test_every_kind_of_correction_tells_its_figures_and_what_approving_does(
    browse: Browse,
    correction: Correction,
    kind: str,
    does: str,
    values: dict[str, Any],
    expected: list[str],
) -> None:
    Break.objects.update(kind=kind)
    given = {"explanation": {"code": "split", "ratio": "2:1", "told": False}, **values}
    Correction.objects.update(kind=does, **given)
    client = browse("Approver")

    page = shown(client, f"{CORRECTIONS}{correction.pk}/decide/")

    for each in expected:
        assert each in page
    assert ("No order is sent" in page) is (does != "trade")
    assert shown(client, CORRECTIONS)
    assert shown(client, f"{CORRECTIONS}{correction.pk}/change/")


def test_each_outcome_is_told_to_who_decided(browse: Browse, correction: Correction) -> None:
    Correction.objects.update(
        status="applied",
        kind="trade",
        client_order_id="restore-1",
        decided_by=User.objects.create_user("zoe"),
        decided_at=timezone.now(),
        comment="Buy them back.",
    )

    page = shown(browse("Viewer"), f"{CORRECTIONS}{correction.pk}/change/")

    assert "Its order, restore-1, is on its way" in page
    assert "Decided by zoe" in page
    assert "“Buy them back.”" in page


def test_a_correction_of_the_wrong_break_or_text_is_never_markup(
    browse: Browse, correction: Correction
) -> None:
    evil = "<script>alert(1)</script>"
    Correction.objects.update(reason=evil, comment=evil, evidence={"x": evil}, problem=evil)

    page = browse("Viewer").get(f"{CORRECTIONS}{correction.pk}/change/").content.decode()

    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 4


def test_the_page_of_a_correction_takes_a_fixed_number_of_queries(
    browse: Browse, correction: Correction
) -> None:
    client = browse("Approver")
    path = f"{CORRECTIONS}{correction.pk}/decide/"
    few = queries(client, path)
    for number in range(20):
        held(correction.account, f"X{number}", "10")
        broken(
            correction.account,
            subject=correction.subject.subject,
            status="healed",
            ended_at=timezone.now(),
        )

    many = queries(client, path)

    assert len(many) == len(few), "\n".join(many)
    assert len(many) <= 26


@real
def test_cash_is_approved_in_dollars_and_the_book_follows(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    reconcile(account)
    cash = CashEntry.objects.get().amount
    row = broken(
        account,
        Kind.CASH,
        subject="account/cash",
        symbol="",
        local=cash - 40,
        broker=cash,
        status="correcting",
    )
    CashEntry.objects.create(
        account=account,
        kind=CashEntry.Kind.ACTIVITY,
        cause="a-1",
        amount=Decimal(-40),
        occurred_at=timezone.now(),
    )
    now = timezone.now()
    correction = Correction.objects.create(
        account=account,
        subject=row,
        kind="cash",
        local=cash - 40,
        broker=cash,
        watermark=now,
        expires_at=now + timedelta(hours=1),
    )

    answer = browse("Approver").post(
        f"{CORRECTIONS}{correction.pk}/decide/",
        {"decision": "approve", "comment": "A fee that was booked twice."},
        follow=True,
    )

    assert f"Our cash is now ${cash:,.2f}, as the broker says." in words(answer.content.decode())
    correction.refresh_from_db()
    assert correction.cash_entry is not None
    assert correction.cash_entry.amount == 40


# --- the emergency rebuild ----------------------------------------------------------------------


@pytest.fixture
def apart(sim: SimulatorServer, settings: LazySettings, account: BrokerAccount) -> BrokerAccount:
    """100 AAPL in the book, 60 at the broker, trading halted."""
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "AAPL", "100", "210")
    reconcile(account)
    hold(sim, "AAPL", "60", "205")
    trading.set_state(account.pk, "halted", reason="The book is wrong.", actor="ben")
    return account


@real
def test_the_rebuild_shows_every_change_first_and_a_look_changes_nothing(
    apart: BrokerAccount, browse: Browse
) -> None:
    client = browse("Administrator")

    page = shown(client, REBUILD)
    client.get(REBUILD, {"name": "main", "reason": "By address.", "account": str(apart.pk)})

    assert "AAPL 100 60 $210.00 $205.00" in page
    assert "Rebuild the book of main" in page
    assert Position.objects.get().qty == 100
    assert not Rebuild.objects.exists()


@real
def test_the_rebuild_takes_the_accounts_name_and_a_reason_and_stays_in_the_list(
    apart: BrokerAccount, browse: Browse
) -> None:
    client = browse("Approver")
    given = {"account": apart.pk, "name": "main", "reason": "The ledger was lost."}

    for wrong in ({"name": "Main"}, {"name": ""}, {"reason": "  "}, {"reason": "x" * 2001}):
        answer = client.post(REBUILD, {**given, **wrong})
        assert answer.status_code in (400, 409), wrong
        assert 'role="alert"' in answer.content.decode()
    before = Position.objects.get().qty
    done = client.post(REBUILD, given, follow=True)

    assert before == 100
    row = Rebuild.objects.get()
    assert (row.actor, row.reason) == ("approver", "The ledger was lost.")
    assert Position.objects.get().qty == 60
    page = words(done.content.decode())
    assert "Trading stays halted until somebody resumes it." in page
    assert "AAPL 100 60 $210.00 $205.00" in page
    assert "The ledger was lost." in shown(browse("Viewer"), "/reconciliation/rebuild/")


@real
def test_while_trading_is_not_halted_nothing_is_rebuilt_and_the_page_leads_there(
    apart: BrokerAccount, browse: Browse
) -> None:
    trading.set_state(apart.pk, "active", reason="Go on.", actor="ben")
    client = browse("Administrator")

    page = client.get(REBUILD).content.decode()
    given = {"account": apart.pk, "name": "main", "reason": "All the same."}
    answer = client.post(REBUILD, given)

    assert "Halt trading of main first" in words(page)
    assert 'href="/trading/"' in page
    assert 'name="reason"' not in page
    assert answer.status_code == 409
    assert Position.objects.get().qty == 100
    assert not Rebuild.objects.exists()


@real
def test_a_broker_that_is_down_is_told_and_nothing_is_rebuilt(
    sim: SimulatorServer, apart: BrokerAccount, browse: Browse
) -> None:
    client = browse("Administrator")
    sim.stop()

    answer = client.get(REBUILD)
    refused = client.post(REBUILD, {"account": apart.pk, "name": "main", "reason": "Now."})

    sim.start()
    assert answer.status_code == 503
    assert "The broker could not be read" in answer.content.decode()
    assert refused.status_code == 409
    assert not Rebuild.objects.exists()


@pytest.mark.parametrize("group", ["Viewer", "Operator", "Risk manager"])
def test_who_may_not_rebuild_gets_403_and_sees_no_way_there(
    browse: Browse, account: BrokerAccount, group: str
) -> None:
    held(account, "AAPL", "100")
    client = browse(group)

    assert client.get(REBUILD).status_code == 403
    given = {"account": account.pk, "name": "main", "reason": "Mine."}
    assert client.post(REBUILD, given).status_code == 403
    assert REBUILD not in client.get("/reconciliation/rebuild/").content.decode()
    assert LedgerEntry.objects.count() == 1


def test_of_several_accounts_one_is_chosen_first(browse: Browse, account: BrokerAccount) -> None:
    second = BrokerAccount.objects.create(name="second", broker="simulator", mode="simulated")
    client = browse("Administrator")

    page = client.get(REBUILD).content.decode()

    assert f'href="?account={account.pk}"' in page
    assert f'href="?account={second.pk}"' in page
    assert client.get(REBUILD, {"account": "999"}).status_code == 404
    assert client.post(REBUILD, {"name": "main", "reason": "x"}).status_code == 200
    assert not Rebuild.objects.exists()


def test_the_reports_lead_to_snapshots_and_rebuilds(browse: Browse, account: BrokerAccount) -> None:
    waiting(account)
    page = browse("Viewer").get(REPORTS).content.decode()

    assert 'href="/reconciliation/rebuild/"' in page
    assert f'href="{SNAPSHOTS}"' in page
