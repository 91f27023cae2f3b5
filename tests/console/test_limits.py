"""The pages of the risk limits: the form, the check before saving, the history, and deciding."""

import re
from datetime import timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from orders.models import Order
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console.limits_text import GROUPS, bounds, shown
from risk.exchange import next_open
from risk.limit_values import KEYS, Limits
from risk.limits import change, in_force
from risk.models import RiskLimits
from tests.console.conftest import Browse, Person

NEW = "/risk/risklimits/add/"
LIST = "/risk/risklimits/"
Status = RiskLimits.Status


@pytest.fixture
def manager(browse: Browse) -> Client:
    return browse("Risk manager")


@pytest.fixture
def eve(person: Person) -> Client:
    """May decide, and see."""
    user = person("eve", "Viewer")
    user.user_permissions.add(Permission.objects.get(codename="decide_risklimits"))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))
    return client


@pytest.fixture
def asks(account: BrokerAccount) -> BrokerAccount:
    """An account that asks for a second person."""
    change(
        account=account,
        strategy=None,
        values={"loosening_needs_approval": True},
        reason="Two pairs of eyes.",
        actor="test",
    )
    return account


def proposed(manager: Client, **values: str) -> RiskLimits:
    manager.post(NEW, {**(values or {"max_positions": "30"}), "reason": "More room."})
    return RiskLimits.objects.get(status=Status.PROPOSED)


class _Inputs(HTMLParser):
    """The names and values that a browser would send."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._select = ""
        self._area = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "input" and (given.get("type") != "radio" or "checked" in given):
            self.found[name] = value
        elif tag == "select":
            self._select = name
        elif tag == "option" and (self._select not in self.found or "selected" in given):
            self.found[self._select] = value
        elif tag == "textarea":
            self._area = name
            self.found[name] = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.found[self._area] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self._area = "" if tag == "textarea" else self._area


def filled(client: Client, address: str = NEW) -> dict[str, str]:
    """What a browser sends of the form, untouched."""
    return _Inputs(client.get(address).content.decode()).found


def test_a_new_version_needs_a_reason_and_the_permission(
    browse: Browse, manager: Client, account: BrokerAccount
) -> None:
    given = {"buy_offset": "0", "reason": "Cross the spread."}

    assert browse("Viewer").post(NEW, given).status_code == 403
    assert manager.post(NEW, {"buy_offset": "0"}).status_code == 200
    assert not RiskLimits.objects.exists()
    assert manager.post(NEW, given).status_code == 302
    row = RiskLimits.objects.get()
    assert (row.version, row.actor, row.reason) == (1, "risk manager", "Cross the spread.")
    assert row.author is not None
    assert in_force(account.pk).buy_offset == 0
    assert "Buy offset: not set → <b>0</b>" in manager.get(LIST).content.decode()


def test_order_types_and_the_duplicate_guard_are_set_and_emptied(
    manager: Client, account: BrokerAccount
) -> None:
    given = {"allowed_order_types": "stop, market", "duplicate_guard": "False"}
    form = manager.get(NEW).content.decode()
    assert '<option value="" selected>not set</option>' in form
    assert '<option value="False">No</option>' in form

    assert manager.post(NEW, {**given, "reason": "Stops."}).status_code == 302
    limits = in_force(account.pk)
    assert limits.allowed_order_types == {"limit", "market", "stop"}
    assert limits.duplicate_guard is False
    page = manager.get(LIST).content.decode()
    assert '<th scope="row">Allowed order types</th><td>limit, market, stop</td>' in page
    assert '<th scope="row">Duplicate guard</th><td>No</td>' in page
    assert "Allowed order types: not set → <b>limit, market, stop</b>" in page
    assert "Duplicate guard: not set → <b>No</b>" in page
    form = manager.get(NEW).content.decode()
    assert 'value="limit,market,stop"' in form
    assert '<option value="False" selected>No</option>' in form

    emptied = {"allowed_order_types": "", "duplicate_guard": "", "reason": "Back."}
    assert manager.post(NEW, emptied).status_code == 302
    assert in_force(account.pk) == Limits()
    assert "Duplicate guard: No → <b>not set</b>" in manager.get(LIST).content.decode()


def test_saving_unchanged_makes_no_version_and_a_version_is_never_edited(
    manager: Client, account: BrokerAccount
) -> None:
    manager.post(NEW, {"max_slippage_pct": "0.3", "reason": "Tighter."})
    again = manager.post(NEW, {"max_slippage_pct": "0.3", "reason": "Again."})
    row = RiskLimits.objects.get()

    assert "Nothing was changed" in again.content.decode()
    assert manager.post(f"/risk/risklimits/{row.pk}/change/", {}).status_code == 405
    assert manager.post(f"/risk/risklimits/{row.pk}/delete/", {}).status_code == 403


def test_the_form_as_a_browser_sends_it_untouched_changes_nothing(
    manager: Client, account: BrokerAccount
) -> None:
    values = {"max_positions": "7", "allowed_symbols": "A,B", "duplicate_guard": "False"}
    manager.post(NEW, {**values, "buy_offset": "2.5", "reason": "Own values."})

    answer = manager.post(NEW, {**filled(manager), "reason": "Again.", "step": "save"})

    assert "Nothing was changed" in answer.content.decode()
    assert RiskLimits.objects.count() == 1


def test_what_somebody_else_changes_meanwhile_is_not_undone(
    manager: Client, account: BrokerAccount
) -> None:
    form = filled(manager)
    change(
        account=account,
        strategy=None,
        values={"max_positions": 5},
        reason="Meanwhile.",
        actor="somebody else",
    )

    saved = manager.post(NEW, {**form, "buy_offset": "3", "reason": "Mine.", "step": "save"})

    assert saved.status_code == 302
    limits = in_force(account.pk)
    assert (limits.max_positions, limits.buy_offset) == (5, 3)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("buying_power_buffer_pct", "101", "less than or equal to 100"),
        ("allowed_order_types", "iceberg", "iceberg: not an order type. Known: limit, market"),
        ("allowed_sessions", "lunch", "lunch: not a session"),
        ("blocked_symbols", "TSLA, 4", "4: not a symbol"),
        ("duplicate_guard", "maybe", "Select a valid choice"),
        ("until", "tomorrow", "is no end. Write"),
        ("until", "2020-01-01 16:00", "must end after it starts"),
        ("starts", "yesterday", "Select a valid choice"),
    ],
)
@pytest.mark.parametrize("step", ["check", "save"])
def test_what_is_not_allowed_is_refused_with_its_reason(
    manager: Client, account: BrokerAccount, key: str, value: str, words: str, step: str
) -> None:
    given = {"max_positions": "5", key: value, "reason": "Everything.", "step": step}

    answer = manager.post(NEW, given)

    assert words in answer.content.decode()
    assert not RiskLimits.objects.exists()


def test_every_limit_has_its_place_in_the_form_with_what_holds_beside_it(
    manager: Client, account: BrokerAccount
) -> None:
    page = manager.get(NEW).content.decode()

    assert sorted(KEYS) == sorted(key for _, keys in GROUPS for key in keys)
    for key in KEYS:
        assert f'name="{key}"' in page
    for heading, _ in GROUPS:
        assert f"{heading}</h2>" in page
    assert "0 to 600." in page
    assert "<td>150 %</td>" in page
    assert "<td>no limit</td>" in page


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("max_position_pct", "0 to 600"),
        ("max_order_qty", "more than 0"),
        ("breaker_window_seconds", "10 to 86,400"),
        ("breaker_min_buying_power", "0 or more"),
        ("allow_short", ""),
    ],
)
def test_bounds_are_told(key: str, words: str) -> None:
    assert bounds(key) == words


@pytest.mark.parametrize(
    ("key", "value", "mode", "words"),
    [
        ("max_order_notional", Decimal("5000.50"), "", "$5,000.50"),
        ("max_position_pct", Decimal("5.00"), "", "5 %"),
        ("breaker_cooldown_seconds", 300, "", "300 s"),
        ("buy_offset", Decimal("15.0000"), "bps", "15 bps"),
        ("buy_offset", Decimal("0.0400"), "absolute", "$0.04"),
        ("allowed_symbols", frozenset({"B", "A"}), "", "A, B"),
        ("blocked_symbols", frozenset(), "", "none"),
        ("allow_short", False, "", "No"),
        ("reconcile_mode", "off", "", "Off: the account is not watched"),
        ("max_positions", None, "", "not set"),
    ],
)
def test_a_value_is_told_with_its_unit(key: str, value: Any, mode: str, words: str) -> None:
    assert shown(key, value, mode) == words


def test_a_strategys_form_leaves_out_what_is_the_accounts_alone(
    manager: Client, strategy: Strategy
) -> None:
    page = manager.get(f"{NEW}?strategy={strategy.pk}").content.decode()

    assert 'name="max_positions"' in page
    assert 'name="breaker_min_orders"' not in page
    assert "Circuit breaker" not in page


def test_a_check_shows_what_changes_and_stores_nothing(
    manager: Client, asks: BrokerAccount
) -> None:
    given = {"max_positions": "30", "max_sector_pct": "20", "buy_offset": "1", "until": "2h"}

    page = manager.post(NEW, {**given, "reason": "More room.", "step": "check"})

    text = " ".join(page.content.decode().split())
    assert RiskLimits.objects.count() == 1
    assert "20 → <b>30</b>" in text
    assert text.count(">Loosens</span>") == 1
    assert text.count(">Tightens</span>") == 1
    assert "Save as a new version, to be approved" in text
    assert "Version 2 would hold from its approval, for 2 h." in text
    assert "None of the 0 orders that were sent" in text


def test_what_was_checked_is_what_is_saved(manager: Client, account: BrokerAccount) -> None:
    given = {**filled(manager), "max_positions": "12", "until": "2h", "reason": "A quiet day."}
    page = manager.post(NEW, {**given, "step": "check"}).content.decode()

    saved = manager.post(NEW, {**_Inputs(page).found, "step": "save"})

    assert saved.status_code == 302
    row = RiskLimits.objects.get()
    assert (row.changed, row.max_positions, row.lasts, row.reason) == (
        ["max_positions"],
        12,
        timedelta(hours=2),
        "A quiet day.",
    )
    assert in_force(account.pk).max_positions == 12


def test_one_can_go_back_from_the_check_with_everything_kept(
    manager: Client, account: BrokerAccount
) -> None:
    given = {**filled(manager), "max_positions": "12", "reason": "A quiet day."}
    page = manager.post(NEW, {**given, "step": "check"}).content.decode()

    again = manager.post(NEW, {**_Inputs(page).found, "step": "edit"}).content.decode()

    back = _Inputs(again).found
    assert (back["max_positions"], back["seen-max_positions"]) == ("12", "")
    assert back["reason"] == "A quiet day."
    assert not RiskLimits.objects.exists()


def test_a_check_tells_what_the_limits_would_have_denied(
    manager: Client, strategy: Strategy
) -> None:
    for actual in ("15", "25"):
        Order.objects.create(
            account=strategy.account,
            strategy=strategy,
            client_order_id=f"order-{actual}",
            chain=uuid4(),
            symbol="TSLA",
            side="buy",
            qty=1,
            type="limit",
            status="filled",
            submitted_at=timezone.now(),
            verdict=[{"code": "max_sector_pct", "limit": "30", "actual": actual, "ok": True}],
        )

    page = manager.post(NEW, {"max_sector_pct": "20", "reason": "Less.", "step": "check"})

    text = page.content.decode()
    assert "1 of 2 orders that were sent: Max sector 1." in text
    assert "order-25" in text
    assert "order-15" not in text


def test_a_change_for_the_next_session_is_scheduled(
    manager: Client, account: BrokerAccount
) -> None:
    given = {"max_positions": "12", "reason": "From tomorrow.", "starts": "next_session"}

    assert manager.post(NEW, given).status_code == 302

    row = RiskLimits.objects.get()
    assert row.starts_at == next_open(row.created_at)
    assert in_force(account.pk).max_positions == 20
    assert "Scheduled" in manager.get(LIST).content.decode()
    assert "Scheduled" in manager.get(NEW).content.decode()
    again = manager.post(NEW, {"max_positions": "9", "reason": "Now.", "step": "check"})
    assert "Another version changes the same limit" in again.content.decode()


def test_a_version_shows_what_it_changed_when_and_why(
    manager: Client, account: BrokerAccount
) -> None:
    manager.post(NEW, {"max_positions": "12", "reason": "A quiet day.", "until": "2h"})
    row = RiskLimits.objects.get()

    text = manager.get(f"/risk/risklimits/{row.pk}/change/").content.decode()

    assert "A quiet day." in text
    assert '<th scope="row">Max positions</th><td>not set</td><td><b>12</b></td>' in text
    assert ">Temporary</span>" in text
    assert re.search(r"Holds from .* ET until .* ET", text)


# Deciding


def decide_page(row: RiskLimits) -> str:
    return f"/risk/risklimits/{row.pk}/decide/"


def waits(row: RiskLimits) -> bool:
    row.refresh_from_db()
    return row.status == Status.PROPOSED


def test_a_loosening_is_stored_as_waiting_and_says_so(manager: Client, asks: BrokerAccount) -> None:
    answer = manager.post(NEW, {"max_positions": "30", "reason": "More."}, follow=True)

    assert "holds only once a second person has approved it" in answer.content.decode()
    assert "Waiting for a second person" in answer.content.decode()
    assert in_force(asks.pk).max_positions == 20


def test_another_person_approves_it_and_it_holds(
    manager: Client, eve: Client, asks: BrokerAccount
) -> None:
    row = proposed(manager)
    link = f'href="{decide_page(row)}"'
    assert link in eve.get(f"/risk/risklimits/{row.pk}/change/").content.decode()
    assert link not in manager.get(f"/risk/risklimits/{row.pk}/change/").content.decode()
    page = eve.get(decide_page(row)).content.decode()
    assert "Approve version 2" in page
    assert "<td>20 → 30</td>" in page
    assert ">Loosens</span>" in page

    answer = eve.post(decide_page(row), {"decision": "approve", "comment": "Fine."}, follow=True)

    text = answer.content.decode()
    assert "Approved. Version 2 holds" in text
    assert "decided by eve" in text
    assert in_force(asks.pk).max_positions == 30


def test_today_leads_who_may_decide_to_the_decision(
    manager: Client, eve: Client, asks: BrokerAccount
) -> None:
    row = proposed(manager)

    assert decide_page(row) in eve.get("/").content.decode()
    authors = manager.get("/").content.decode()
    assert "main: limits wait for a second person" in authors
    assert decide_page(row) not in authors


def test_rejected_it_never_holds(manager: Client, eve: Client, asks: BrokerAccount) -> None:
    row = proposed(manager)

    answer = eve.post(decide_page(row), {"decision": "reject", "comment": "No."}, follow=True)

    assert "It never held." in answer.content.decode()
    assert in_force(asks.pk).max_positions == 20


def test_looking_decides_nothing(manager: Client, eve: Client, asks: BrokerAccount) -> None:
    row = proposed(manager)

    eve.get(decide_page(row), {"decision": "approve", "comment": "By address."})
    eve.head(decide_page(row))

    assert waits(row)
    assert eve.put(decide_page(row)).status_code == 405


def test_who_may_not_decide_gets_403(browse: Browse, person: Person, asks: BrokerAccount) -> None:
    author = person("ann", "Risk manager")
    author.user_permissions.add(Permission.objects.get(codename="decide_risklimits"))
    manager = Client()
    manager.force_login(User.objects.get(pk=author.pk))
    row = proposed(manager)
    given = {"decision": "approve", "comment": "I want it."}

    for client in (browse("Viewer"), browse("Operator"), manager):
        assert client.get(decide_page(row)).status_code == 403
        assert client.post(decide_page(row), given).status_code == 403

    assert waits(row)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"decision": "approve", "comment": "  "}, "a comment is required"),
        ({"decision": "approve"}, "a comment is required"),
        ({"decision": "maybe", "comment": "Hm."}, "Choose: approve or reject."),
        ({}, "Choose: approve or reject."),
    ],
)
def test_without_a_decision_or_a_comment_nothing_is_decided(
    manager: Client, eve: Client, asks: BrokerAccount, given: dict[str, str], words: str
) -> None:
    row = proposed(manager)

    answer = eve.post(decide_page(row), given)

    assert answer.status_code == 400
    assert words in answer.content.decode()
    assert waits(row)


def test_a_second_decision_and_one_that_was_overtaken_say_why(
    manager: Client, eve: Client, asks: BrokerAccount
) -> None:
    row = proposed(manager)
    manager.post(NEW, {"max_positions": "10", "reason": "Less after all."})
    given = {"decision": "approve", "comment": "Fine."}

    overtaken = eve.post(decide_page(row), given)

    assert overtaken.status_code == 409
    assert "Version 3 has changed max_positions since" in overtaken.content.decode()
    assert waits(row)
    eve.post(decide_page(row), {"decision": "reject", "comment": "No."})
    again = eve.post(decide_page(row), given)
    assert again.status_code == 409
    assert "rejected already" in again.content.decode()
    assert in_force(asks.pk).max_positions == 10
