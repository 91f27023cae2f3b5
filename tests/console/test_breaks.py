"""The work queue of breaks and a break's own page: what they show, who may do what, that no look
changes anything."""

import json
import zlib
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from orders.models import Order
from ordinis.accounts.models import BrokerAccount, Strategy
from positions.ledger import book, lock_position
from positions.models import LedgerEntry, Position
from reconciliation import history, queue
from reconciliation.models import Break, BreakEvent, BrokerActivity, Correction, Kind, Snapshot
from reconciliation.run import reconcile
from tests.conftest import hold, quote, sent
from tests.console.conftest import Browse, Person, broken, held, waiting, words
from tests.console.test_queries import orders, queries
from tests.simulator_server import SimulatorServer

real = pytest.mark.django_db(transaction=True)
LIST = "/reconciliation/break/"
Status, What = Break.Status, BreakEvent.What
ACTIONS = ("comment", "assign", "acknowledge", "resolve", "propose", "adopt", "restore")


def page_of(row: Break) -> str:
    return f"{LIST}{row.pk}/change/"


def act(client: Client, row: Break, action: str, **given: Any) -> Any:
    return client.post(f"{LIST}{row.pk}/{action}/", given)


def shown(client: Client, path: str = LIST, **query: str) -> str:
    answer = client.get(path, query)
    assert answer.status_code == 200, answer.content
    return words(answer.content.decode())


def an_order(account: BrokerAccount) -> Order:
    orders(account, 1)
    return Order.objects.get()


def note(row: Break, what: BreakEvent.What, text: str = "", actor: str = "Ordinis") -> None:
    with transaction.atomic():
        history.note(row, what, at=timezone.now(), actor=actor, text=text)


# --- the list -----------------------------------------------------------------------------------


# By kind: what differs, its line in the list, its sentence on the page.
KINDS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        Kind.ZOMBIE,
        {"broker": Decimal(0)},
        "AAPL To look at Zombie 100 0 −100 $8,400.00 Open",
        "Our book says 100, the broker 0: −100 shares. Worth $8,400.00.",
    ),
    (
        Kind.ORPHAN,
        {"local": Decimal(0), "value": None},
        "Orphan 0 60 +60 – Open",
        "Our book says 0, the broker 60: +60 shares. Nothing",
    ),
    (
        Kind.QUANTITY,
        {},
        "Quantity 100 60 −40 $8,400.00 Open 0 s 1 – 0",
        "100, the broker 60: −40 shares.",
    ),
    (Kind.SIDE, {"broker": Decimal(-60)}, "Side 100 −60 −160", "the broker −60: −160 shares."),
    (Kind.SPLIT, {"broker": Decimal(200)}, "Split 100 200 +100", "the broker 200: +100 shares."),
    (
        Kind.AVERAGE_PRICE,
        {"local": Decimal("60"), "broker": Decimal("61.123")},
        "Average price $60.00 $61.123 +$1.123",
        "Our book's average price is $60.00, the broker's $61.123: +$1.123 a share.",
    ),
    (
        Kind.ORDER_MISSING,
        {
            "subject": "order/b-1",
            "broker_order_id": "b-1",
            "local_status": "new",
            "broker": Decimal(0),
        },
        "Broker order b-1 (AAPL) To look at Order missing 100, new – −100",
        "Open here with 100 shares left; unknown at the broker.",
    ),
    (
        Kind.ORDER_EXTERNAL,
        {
            "subject": "order/b-1",
            "broker_order_id": "b-1",
            "local": Decimal(0),
            "broker_status": "new",
        },
        "External order – 60, new +60",
        "The broker works an order for +60 AAPL that was not placed by Ordinis.",
    ),
    (
        Kind.ORDER_STATUS,
        {"subject": "order/b-1", "local_status": "new", "broker_status": "canceled"},
        "Order status New Cancelled –",
        "Here it is new, at the broker cancelled.",
    ),
    (
        Kind.ORDER_FILL,
        {"subject": "order/b-1", "local_status": "new", "broker_status": "canceled"},
        "Order fill 100, new 60, cancelled −40",
        "Filled here 100, at the broker 60: −40 shares.",
    ),
    (
        Kind.CASH,
        {"subject": "account/cash", "symbol": "", "value": Decimal(40)},
        "Cash To look at Cash $100.00 $60.00 −$40.00 $40.00",
        "Our book says $100.00 of cash, the broker $60.00: −$40.00.",
    ),
    (
        Kind.BUYING_POWER,
        {"subject": "account/buying_power", "symbol": ""},
        "Buying power To look at Buying power $100.00 $60.00 −$40.00",
        "$100.00 of buying power follow, the broker says $60.00: −$40.00.",
    ),
    (
        Kind.MASS,
        {"subject": "account/positions", "symbol": ""},
        "All positions To look at Mass difference 100 compared 60 agree 40 differ",
        "Of 100 positions and open orders compared, 40 differ.",
    ),
    (
        Kind.TRADE_BUST,
        {"subject": "bust/1"},
        "AAPL To look at Trade bust 100 60 −40",
        "after what the broker took back or corrected 60 stand: −40 shares.",
    ),
]


@pytest.mark.parametrize(("kind", "values", "line", "sentence"), KINDS)
def test_every_kind_has_its_line_and_its_page_in_its_own_unit(
    browse: Browse,
    account: BrokerAccount,
    kind: str,
    values: dict[str, Any],
    line: str,
    sentence: str,
) -> None:
    row = broken(account, kind, **values)
    client = browse("Operator")

    assert line in shown(client)
    page = shown(client, page_of(row))
    assert sentence in page
    assert "Nothing that Ordinis knows of explains it." in page


def test_an_order_that_filled_beyond_its_quantity_says_so(
    browse: Browse, account: BrokerAccount
) -> None:
    row = broken(account, Kind.ORDER_FILL, subject="overfill/1", local=Decimal(50))

    assert "It was for 50 shares; 60 have filled: +10." in shown(browse("Viewer"), page_of(row))


def test_every_kind_there_is_has_been_looked_at() -> None:
    assert {kind for kind, *_ in KINDS} == set(Kind)


def test_a_break_of_an_order_of_ours_names_and_links_it(
    browse: Browse, account: BrokerAccount
) -> None:
    order = an_order(account)
    row = broken(
        account,
        Kind.ORDER_STATUS,
        subject="order/b-1",
        order=order,
        symbol=order.symbol,
        local_status="new",
        broker_status="canceled",
    )
    client = browse("Viewer")

    assert f"Order {order.client_order_id} (TSLA)" in shown(client)
    page = client.get(page_of(row)).content.decode()
    assert f'href="/orders/order/{order.pk}/change/"' in page
    assert "Here it is new, at the broker cancelled." in page


def test_the_list_tells_who_has_it_how_often_it_was_seen_and_what_was_said(
    browse: Browse, account: BrokerAccount, person: Person
) -> None:
    ann = person("ann", "Operator")
    row = broken(
        account,
        assignee=ann,
        seen_count=17,
        explanation={
            "code": "external_trades",
            "qty": "-40",
            "price": "209.5",
            "count": 1,
            "last_at": "2026-11-20T15:00:00+00:00",
            "orders": ["b-9"],
        },
    )
    for text in ("One.", "Two."):
        queue.comment(row, text, by=ann)
    queue.acknowledge([row.pk], by=ann)

    line = shown(browse("Viewer"))

    assert "Acknowledged 0 s 17 ann 2" in line
    assert "Traded at the broker past Ordinis: -40 at $209.5, for exactly this difference." in line


def test_what_is_to_act_on_stands_first_and_then_by_value(
    browse: Browse, account: BrokerAccount
) -> None:
    for symbol, value, severity in (
        ("LOW", 1, "warning"),
        ("NONE", None, "warning"),
        ("HIGH", 900, "warning"),
        ("RED", 5, "critical"),
    ):
        broken(account, symbol=symbol, subject=f"position/{symbol}", value=value, severity=severity)

    page = shown(browse("Viewer"))

    places = [page.index(f"{symbol} To ") for symbol in ("RED", "HIGH", "LOW", "NONE")]
    assert places == sorted(places)


def test_breaks_are_filtered_by_state_kind_severity_and_who_has_them(
    browse: Browse, account: BrokerAccount
) -> None:
    client = browse("Operator")
    me = User.objects.get(username="operator")
    broken(account, symbol="MINE", subject="position/MINE", assignee=me)
    broken(account, symbol="FREE", subject="position/FREE", severity="critical")
    broken(
        account,
        Kind.ZOMBIE,
        symbol="GONE",
        subject="position/GONE",
        status=Status.HEALED,
        ended_at=timezone.now(),
    )

    def found(**query: str) -> set[str]:
        page = client.get(LIST, query).content.decode()
        return {symbol for symbol in ("MINE", "FREE", "GONE") if f">{symbol}</a>" in page}

    assert found() == {"MINE", "FREE"}
    assert found(state="ended") == {"GONE"}
    assert found(state="all") == {"MINE", "FREE", "GONE"}
    assert found(assigned="me") == {"MINE"}
    assert found(assigned="nobody") == {"FREE"}
    assert found(severity__exact="critical") == {"FREE"}
    assert found(kind="quantity") == {"MINE", "FREE"}
    assert found(kind="zombie", state="all") == {"GONE"}
    assert found(q="mine") == {"MINE"}


def test_what_others_wrote_is_never_markup(
    browse: Browse, account: BrokerAccount, person: Person
) -> None:
    evil = "<script>alert(1)</script>"
    row = broken(
        account,
        Kind.ORDER_STATUS,
        subject="order/b-1",
        broker_order_id=evil,
        local_status="new",
        broker_status=evil,
        explanation={"code": "unresolved_order", "client_order_id": evil},
    )
    queue.comment(row, evil, by=person("ann", "Operator"))
    BrokerActivity.objects.create(
        account=account,
        activity_id="a-1",
        activity_type=evil[:16],
        symbol="AAPL",
        occurred_at=timezone.now(),
        raw={"note": evil},
    )
    client = browse("Operator")

    for path in (LIST, page_of(row), "/"):
        page = client.get(path).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


# --- several at once ----------------------------------------------------------------------------


def bulk(client: Client, do: str, *rows: Break, **given: Any) -> str:
    answer = client.post(
        f"{LIST}work/", {"do": do, "break": [row.pk for row in rows], **given}, follow=True
    )
    assert answer.redirect_chain[0][0].startswith(LIST), answer.redirect_chain
    return words(answer.content.decode())


def three(account: BrokerAccount) -> list[Break]:
    return [
        broken(account, symbol=symbol, subject=f"position/{symbol}") for symbol in ("A", "B", "C")
    ]


def test_several_are_assigned_and_acknowledged_at_once_and_the_filters_stay(
    browse: Browse, account: BrokerAccount, person: Person
) -> None:
    ben = person("ben", "Operator")
    first, second, third = three(account)
    client = browse("Operator")

    assert "2 breaks assigned to you." in bulk(client, "mine", first, second)
    assert "2 breaks assigned to ben." in bulk(client, "assign", second, third, to=ben.pk)
    assert "1 break assigned to nobody." in bulk(client, "assign", first, to="nobody")
    page = client.post(
        f"{LIST}work/",
        {
            "do": "acknowledge",
            "break": [first.pk, third.pk],
            "comment": "Known.",
            "back": "?kind=quantity",
        },
        follow=True,
    )

    assert page.redirect_chain == [(f"{LIST}?kind=quantity", 302)]
    assert "2 breaks acknowledged." in words(page.content.decode())
    rows = list(Break.objects.order_by("symbol").values_list("assignee__username", "status"))
    assert rows == [(None, "acknowledged"), ("ben", "open"), ("ben", "acknowledged")]
    said = BreakEvent.objects.filter(what=What.ACKNOWLEDGED)
    assert [(event.actor, event.text) for event in said] == [("operator", "Known.")] * 2


def test_what_stood_so_already_is_told_apart(browse: Browse, account: BrokerAccount) -> None:
    first, second, _ = three(account)
    client = browse("Operator")
    bulk(client, "acknowledge", first)

    told = bulk(client, "acknowledge", first, second)

    assert "1 break acknowledged. 1 break stood so already, or had ended." in told
    assert BreakEvent.objects.count() == 2


@pytest.mark.parametrize(
    ("do", "given", "why"),
    [
        ("acknowledge", {"break": []}, "tick the boxes"),
        ("mine", {"break": ["x", "9" * 40]}, "tick the boxes"),
        ("approve", {}, "Choose what to do"),
        ("assign", {"to": "999999"}, "no such person"),
        ("assign", {"to": ""}, "Choose the person"),
        ("mine", {"break": [*range(1, 502)]}, "at most 500"),
    ],
)
def test_nonsense_changes_nothing_and_says_why(
    browse: Browse, account: BrokerAccount, do: str, given: dict[str, Any], why: str
) -> None:
    row = broken(account)

    assert why in bulk(browse("Operator"), do, row, **given)
    row.refresh_from_db()
    assert (row.status, row.assignee) == (Status.OPEN, None)
    assert not BreakEvent.objects.exists()


def test_the_way_back_never_leaves_the_list(browse: Browse, account: BrokerAccount) -> None:
    answer = browse("Operator").post(f"{LIST}work/", {"back": "https://elsewhere.example/"})

    assert answer.headers["Location"] == LIST


def test_nothing_is_approved_from_the_list_and_what_has_ended_is_not_chosen(
    browse: Browse, account: BrokerAccount
) -> None:
    waiting(account)
    ended = broken(account, subject="x", status=Status.HEALED, ended_at=timezone.now())
    page = browse("Operator", "Approver").get(LIST, {"state": "all"}).content.decode()

    assert 'value="approve"' not in page
    assert "/decide/" not in page
    assert page.count('name="break"') == 1
    assert f'name="break" value="{ended.pk}"' not in page


# --- who may ------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["Viewer", "Risk manager", "Administrator"])
def test_who_may_not_work_on_breaks_sees_no_form_and_gets_403(
    browse: Browse, account: BrokerAccount, group: str
) -> None:
    row = broken(account, Kind.ORDER_EXTERNAL, subject="order/b-1", broker_order_id="b-1")
    position = broken(account)
    client = browse(group)

    for path in (LIST, page_of(row), page_of(position)):
        assert f'action="{LIST}' not in client.get(path).content.decode()
    for each in (row, position):
        for action in ACTIONS:
            assert act(client, each, action, comment="Mine.").status_code == 403, action
    given = {"do": "mine", "break": [row.pk]}
    assert client.post(f"{LIST}work/", given).status_code == 403
    assert not BreakEvent.objects.exists()
    assert not Correction.objects.exists()


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        ("work_on_break", {"comment", "assign", "acknowledge", "resolve"}),
        ("propose_correction", {"propose", "adopt", "restore"}),
    ],
)
def test_working_on_a_break_and_proposing_are_two_permissions(
    account: BrokerAccount, person: Person, granted: str, allowed: set[str]
) -> None:
    row = broken(account, Kind.TRADE_BUST, subject="bust/1")
    user = person("eve", "Viewer")
    user.user_permissions.add(Permission.objects.get(codename=granted))
    client = Client()
    client.force_login(User.objects.get(pk=user.pk))

    answers = {action: act(client, row, action).status_code for action in ACTIONS}

    assert {action for action, status in answers.items() if status != 403} == allowed


def test_a_get_of_any_form_changes_nothing(browse: Browse, account: BrokerAccount) -> None:
    row = broken(account, Kind.ORDER_MISSING, subject="order/b-1")
    client = browse("Operator")

    for action in (*ACTIONS[:-1], "work"):
        path = f"{LIST}work/" if action == "work" else f"{LIST}{row.pk}/{action}/"
        assert client.get(path, {"comment": "By address.", "do": "mine"}).status_code == 405
    client.get(page_of(row), {"comment": "By address."})
    client.get(LIST)

    row.refresh_from_db()
    assert (row.status, row.assignee) == (Status.OPEN, None)
    assert not BreakEvent.objects.exists()


def test_a_forged_post_is_refused(person: Person, account: BrokerAccount) -> None:
    row = broken(account)
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("ann", "Operator"))

    assert act(client, row, "comment", comment="From another site.").status_code == 403
    assert not BreakEvent.objects.exists()


def test_a_break_that_is_not_there_is_a_404(browse: Browse, account: BrokerAccount) -> None:
    client = browse("Operator")

    for action in ACTIONS:
        assert client.post(f"{LIST}9999/{action}/", {"comment": "x"}).status_code == 404


# --- the page -----------------------------------------------------------------------------------


def test_what_people_do_is_in_the_history_with_their_names(
    browse: Browse, account: BrokerAccount
) -> None:
    row = broken(account)
    note(row, What.OPENED, "AAPL: our book says 100, the broker 60.")
    client = browse("Operator")

    assert act(client, row, "comment", comment="Asked the desk.").status_code == 302
    assert act(client, row, "assign", do="mine").status_code == 302
    assert act(client, row, "acknowledge", comment="On it.").status_code == 302

    page = shown(client, page_of(row))
    steps = [
        "Opened by Ordinis AAPL: our book says 100, the broker 60.",
        "Commented by operator Asked the desk.",
        "Assigned by operator to operator",
        "Acknowledged by operator On it.",
    ]
    places = [page.index(step) for step in steps]
    assert places == sorted(places)
    row.refresh_from_db()
    assert (row.status, row.assignee and row.assignee.username) == ("acknowledged", "operator")


def test_a_comment_is_taken_after_the_end_too(browse: Browse, account: BrokerAccount) -> None:
    row = broken(account, status=Status.RESOLVED, ended_at=timezone.now())
    client = browse("Operator")

    assert act(client, row, "comment", comment="It was a split.").status_code == 302
    page = shown(client, page_of(row))
    assert "It was a split." in page
    assert "Assign to me" not in page
    assert act(client, row, "acknowledge").status_code == 400


@pytest.mark.parametrize("action", ["comment", "resolve", "adopt"])
def test_what_was_refused_keeps_what_was_typed_and_says_why(
    browse: Browse, account: BrokerAccount, action: str
) -> None:
    kind = Kind.ORDER_EXTERNAL if action == "adopt" else Kind.ORDER_MISSING
    row = broken(account, kind, subject="order/b-1", broker_order_id="b-1")
    client = browse("Operator")

    empty = act(client, row, action, comment="  ")
    long = act(client, row, action, comment="long " * 401)

    for answer in (empty, long):
        assert answer.status_code == 400
        assert 'role="alert"' in answer.content.decode()
    assert "a comment is required" in empty.content.decode()
    assert "long long long" in long.content.decode()
    assert "<details open>" in long.content.decode()
    assert not BreakEvent.objects.exists()


def test_only_what_nothing_else_ends_can_be_called_resolved(
    browse: Browse, account: BrokerAccount
) -> None:
    missing = broken(account, Kind.ORDER_MISSING, subject="order/b-1")
    drift = broken(account)
    client = browse("Operator")

    assert 'id="open-resolve"' in client.get(page_of(missing)).content.decode()
    assert 'id="open-resolve"' not in client.get(page_of(drift)).content.decode()
    assert act(client, missing, "resolve", comment="The broker lost it.").status_code == 302
    refused = act(client, drift, "resolve", comment="Never mind.")

    assert refused.status_code == 400
    assert "ends by itself" in refused.content.decode()
    missing.refresh_from_db()
    drift.refresh_from_db()
    assert (missing.status, drift.status) == (Status.RESOLVED, Status.OPEN)


def test_the_evidence_of_its_symbol_is_on_the_page_with_secrets_blotted_out(
    browse: Browse, account: BrokerAccount
) -> None:
    held(account, "AAPL", "100", broker="60")
    row = broken(account)
    before = broken(account, subject=row.subject, status=Status.HEALED, ended_at=timezone.now())
    BrokerActivity.objects.create(
        account=account,
        activity_id="a-1",
        activity_type="FILL",
        symbol="AAPL",
        qty=Decimal(-40),
        price=Decimal("209.5"),
        amount=Decimal(8380),
        occurred_at=timezone.now(),
        raw={"order_id": "b-9", "note": "ord_" + "x" * 43},
    )
    page = browse("Viewer").get(page_of(row)).content.decode()

    told = words(page)
    assert "FILL AAPL −40 $209.50 +$8,380.00" in told
    assert "Taken over when the book was opened" in told
    assert f'href="{page_of(before)}"' in page
    assert "b-9" in page
    assert "xxxx" not in page


def test_a_mass_difference_leads_to_the_emergency_rebuild(
    browse: Browse, account: BrokerAccount
) -> None:
    row = broken(account, Kind.MASS, subject="account/positions", symbol="", severity="critical")
    page = browse("Approver").get(page_of(row)).content.decode()

    assert f'href="/reconciliation/rebuild/now/?account={account.pk}"' in page
    assert "Of 100 positions and open orders compared, 40 differ." in page
    assert f"{LIST}{row.pk}/propose/" not in page
    assert "Figure Compared Agree Differ Positions and open orders 100 60 40" in words(page)


def test_a_long_history_takes_as_many_queries_as_a_short_one(
    browse: Browse, account: BrokerAccount
) -> None:
    row = broken(account, symbol="TSLA", subject="position/TSLA")
    client = browse("Operator", "Approver")

    def fill(count: int) -> None:
        orders(account, count)
        for number in range(count):
            note(row, What.CHANGED, f"step {number}")
            broken(
                account,
                symbol="TSLA",
                subject=row.subject,
                status=Status.HEALED,
                ended_at=timezone.now(),
            )

    fill(5)
    few = queries(client, page_of(row))
    fill(50)
    many = queries(client, page_of(row))

    assert len(many) == len(few), "\n".join(many)
    assert len(many) <= 26
    assert "step 49" in shown(client, page_of(row))


# --- today --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "values", "line"),
    [
        (Kind.CASH, {"subject": "account/cash", "symbol": ""}, "Cash: −$40.00"),
        (Kind.AVERAGE_PRICE, {}, "AAPL: −$40.00 a share"),
        (
            Kind.MASS,
            {"subject": "account/positions", "symbol": ""},
            "All positions: 40 of 100 differ",
        ),
        (
            Kind.ORDER_STATUS,
            {"subject": "order/b", "local_status": "new", "broker_status": "filled"},
            "New here, filled at the broker",
        ),
    ],
)
def test_today_names_each_kind_in_its_own_unit(
    browse: Browse, account: BrokerAccount, kind: str, values: dict[str, Any], line: str
) -> None:
    broken(account, kind, **values)

    assert line in shown(browse("Viewer"), "/")


def test_today_counts_the_breaks_that_it_does_not_show(
    browse: Browse, account: BrokerAccount
) -> None:
    for number in range(23):
        broken(account, subject=f"position/X{number}", symbol=f"X{number}")

    page = shown(browse("Viewer"), "/")

    assert "And 3 more breaks" in page


def test_today_leads_the_only_person_to_decide_their_own(
    account: BrokerAccount, person: Person
) -> None:
    both = person("both", "Operator", "Approver")
    correction = waiting(account, by=both)
    client = Client()
    client.force_login(both)
    address = f"/reconciliation/correction/{correction.pk}/decide/"

    alone = client.get("/").content.decode()
    person("other", "Approver")
    with_another = client.get("/").content.decode()

    assert address in alone
    assert address not in with_another


# --- restoring by a trade, and adopting -----------------------------------------------------------


@pytest.fixture
def drifted(sim: SimulatorServer, settings: LazySettings, account: BrokerAccount) -> Break:
    """100 AAPL in the book; 40 sold by hand at the broker, seen twice."""
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "AAPL", "100", "210")
    quote(sim, "AAPL", "210")
    reconcile(account)
    hold(sim, "AAPL", "60", "210")
    reconcile(account)
    reconcile(account)
    return Break.objects.get()


@real
def test_a_trade_that_restores_is_shown_proposed_and_sent_only_once_somebody_else_approves(
    sim: SimulatorServer, drifted: Break, browse: Browse, wide_limits: None
) -> None:
    operator, approver = browse("Operator"), browse("Approver")
    restore = f"{LIST}{drifted.pk}/restore/"
    assert f'href="{restore}"' in operator.get(page_of(drifted)).content.decode()

    plan = shown(operator, restore)
    before = Correction.objects.count()
    without = operator.post(restore, {"comment": " "})
    proposed = operator.post(restore, {"comment": "It was a slip of the hand."})

    assert "AAPL Buy 40 $211." in plan
    assert "Propose to buy 40 AAPL" in plan
    assert without.status_code == 400
    correction = Correction.objects.get(status="proposed")
    assert (before, correction.kind) == (1, Correction.Kind.TRADE)
    assert proposed.headers["Location"].endswith(f"/correction/{correction.pk}/change/")
    assert sent(sim) == []

    decide = f"/reconciliation/correction/{correction.pk}/decide/"
    assert operator.post(decide, {"decision": "approve", "comment": "x"}).status_code == 403
    form = shown(approver, decide)
    done = approver.post(
        decide, {"decision": "approve", "comment": "Buy them back."}, follow=True
    ).content.decode()

    assert "Approving it SENDS AN ORDER to the broker: buy 40 AAPL" in form
    assert "Approve: SEND AN ORDER to buy 40 AAPL" in form
    assert "Shares at the broker 60 100" in form
    (order,) = sent(sim)
    assert (order["body"]["side"], order["body"]["qty"]) == ("buy", "40")
    assert Order.objects.get().client_order_id in done
    assert LedgerEntry.objects.exclude(kind="fill").count() == 1


@real
def test_a_restoration_that_cannot_be_made_says_why_and_offers_no_form(
    sim: SimulatorServer, drifted: Break, browse: Browse
) -> None:
    hold(sim, "AAPL", "100", "210")  # it came back by itself
    client = browse("Operator")
    restore = f"{LIST}{drifted.pk}/restore/"

    page = shown(client, restore)
    refused = client.post(restore, {"comment": "All the same."})
    sim.stop()
    down = client.get(restore)
    sim.start()

    assert "Nothing of AAPL differs any more." in page
    assert "Propose to" not in page
    assert refused.status_code == 409
    assert down.status_code == 503
    assert not Correction.objects.filter(kind="trade").exists()


def test_no_trade_restores_cash(browse: Browse, account: BrokerAccount) -> None:
    row = broken(account, Kind.CASH, subject="account/cash", symbol="")

    assert browse("Operator").get(f"{LIST}{row.pk}/restore/").status_code == 404


@real
def test_a_problem_of_an_approved_trade_is_shown_afterwards(
    sim: SimulatorServer, drifted: Break, browse: Browse
) -> None:
    correction = Correction.objects.get()
    Correction.objects.filter(pk=correction.pk).update(
        kind="trade",
        status="applied",
        client_order_id="restore-1",
        decided_by=User.objects.create_user("x"),
        decided_at=timezone.now(),
        problem="The order was not taken: trading is halted.",
    )

    page = shown(browse("Viewer"), f"/reconciliation/correction/{correction.pk}/change/")

    assert "Approved, not carried out" in page
    assert "trading is halted" in page


@real
def test_an_external_order_is_adopted_with_a_reason_and_becomes_one_of_ours(
    sim: SimulatorServer, settings: LazySettings, account: BrokerAccount, browse: Browse
) -> None:
    settings.SECOND_LOOK_SECONDS = 0
    reconcile(account)
    body = {"symbol": "AAPL", "side": "buy", "qty": "5", "type": "limit", "time_in_force": "gtc"}
    theirs = sim.trading("POST", "/v2/orders", json={**body, "limit_price": "1"}).json()["id"]
    reconcile(account)
    reconcile(account)
    row = Break.objects.get(kind=Kind.ORDER_EXTERNAL)
    client = browse("Operator")

    without = act(client, row, "adopt", comment="")
    none_yet = Order.objects.exists()
    done = act(client, row, "adopt", comment="Placed by the desk.")

    assert (without.status_code, none_yet) == (400, False)
    order = Order.objects.get()
    assert order.broker_order_id == theirs
    assert done.headers["Location"] == f"/orders/order/{order.pk}/change/"
    row.refresh_from_db()
    assert row.status == Status.RESOLVED
    again = shown(client, page_of(row))
    assert "Placed by the desk." in again
    assert 'id="open-adopt"' not in client.get(page_of(row)).content.decode()


@real
def test_what_is_no_external_order_is_not_adopted(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    row = broken(account)

    answer = act(browse("Operator"), row, "adopt", comment="Take it.")

    assert answer.status_code == 400
    assert "Only an external order can be adopted" in answer.content.decode()
    assert not Position.objects.exists()
    assert not Strategy.objects.exists()


# --- an order that was not placed here ----------------------------------------------------------


def looked(account: BrokerAccount, orders: list[Any], *, ago: int = 0) -> Snapshot:
    """What the broker answered, so many seconds ago."""
    told = zlib.compress(json.dumps({"orders": orders}).encode())
    at = timezone.now() - timedelta(seconds=ago)
    return Snapshot.objects.create(account=account, asked_at=at, complete=True, evidence=told)


THEIRS = {
    "id": "b-1",
    "client_order_id": "<b>desk-7</b>",
    "side": "sell",
    "type": "stop_limit",
    "qty": "1200",
    "limit_price": "250.5",
    "stop_price": "n/a",
    "time_in_force": "gtc",
    "submitted_at": "2026-01-05T15:00:00.123456789Z",
}


def external(account: BrokerAccount, **given: Any) -> Break:
    subject = {"subject": "order/b-1", "broker_order_id": "b-1"}
    return broken(account, Kind.ORDER_EXTERNAL, **{**subject, **given})


def test_an_order_placed_elsewhere_shows_its_terms_as_text(
    browse: Browse, account: BrokerAccount
) -> None:
    row = external(account)
    told = looked(account, ["?", {"id": "b-0", "side": "buy"}, THEIRS])
    Snapshot.objects.create(account=account, asked_at=timezone.now(), complete=True, same_as=told)

    page = browse("Viewer").get(page_of(row)).content.decode()

    for shown_term in (
        "Side Sell Shares 1,200",
        "Type Stop limit Limit price $250.50 Stop price n/a Time in force gtc",
        "At the broker since Jan 5",
        "10:00:00 ET",
    ):
        assert shown_term in words(page)
    assert "&lt;b&gt;desk-7&lt;/b&gt;" in page
    assert "<b>desk-7" not in page


def test_an_order_that_has_gone_shows_the_terms_it_had_when_it_was_seen_last(
    browse: Browse, account: BrokerAccount
) -> None:
    now = timezone.now()
    looked(account, [THEIRS], ago=60)
    looked(account, [], ago=1)
    seen = now - timedelta(seconds=30)
    row = external(account, last_seen=seen, status=Status.HEALED, ended_at=now)

    assert "Side Sell Shares 1,200" in shown(browse("Viewer"), page_of(row))


@pytest.mark.parametrize("orders", [[], {"b-1": 1}, [{"id": "b-2"}], [None], [{"id": "b-1"}]])
def test_terms_that_the_broker_did_not_tell_are_not_shown(
    browse: Browse, account: BrokerAccount, orders: Any
) -> None:
    row = external(account)
    client = browse("Viewer")

    assert "The order at the broker" not in shown(client, page_of(row))
    looked(account, orders)
    assert "The order at the broker" not in shown(client, page_of(row))


# --- in the right words -------------------------------------------------------------------------


def test_what_has_ended_is_told_as_past_and_not_as_to_act_on(
    browse: Browse, account: BrokerAccount
) -> None:
    row = broken(account, severity="critical", status=Status.HEALED, ended_at=timezone.now())

    page = shown(browse("Viewer"), page_of(row))

    assert "Was: “Our book says 100, the broker 60: −40 shares.” Worth $8,400.00 then." in page
    assert "To act on" not in page


def test_who_proposes_is_told_who_decides(
    browse: Browse, account: BrokerAccount, person: Person
) -> None:
    row = broken(account)
    alone = browse("Operator", "Approver")
    yours = "Nobody else may decide it: you can, by typing the account's name."

    by_oneself = shown(alone, page_of(row))
    person("other", "Approver")
    by_another = shown(alone, page_of(row))

    assert yours in by_oneself
    assert "Somebody else" not in by_oneself
    assert "Our book takes over what the broker says then. Somebody else decides it." in by_another
    assert yours not in by_another


@pytest.mark.parametrize(("brokers", "does"), [("105", "Sell 5 AAPL"), ("97.5", "Buy 2.5 AAPL")])
def test_a_trade_is_called_what_it_does(
    browse: Browse, account: BrokerAccount, brokers: str, does: str
) -> None:
    correction = waiting(account)
    Correction.objects.update(kind=Correction.Kind.TRADE, broker=Decimal(brokers))
    correction.refresh_from_db()
    client = browse("Approver")
    address = f"/reconciliation/correction/{correction.pk}/"

    assert f"Correction {correction.pk}: {does}" in shown(client, f"{address}change/")
    assert f"Decide correction {correction.pk}: {does}" in shown(client, f"{address}decide/")
    assert does in shown(client, "/reconciliation/correction/")
    assert f"Correction {correction.pk}: {does}" in shown(client, page_of(correction.subject))
    assert str(correction) == does[0].lower() + does[1:]


def test_a_correction_is_written_with_a_sign_and_thousands(account: BrokerAccount) -> None:
    position = Position(account=account, symbol="AAPL")
    sides = {"local": Decimal("64440.64"), "broker": Decimal(0)}

    assert str(Correction(kind="position", position=position, **sides)) == "−64,440.64 AAPL"
    assert str(Correction(kind="cash", **sides)) == "−$64,440.64 of cash"


def test_the_ledger_says_in_words_what_made_each_entry(
    browse: Browse, account: BrokerAccount
) -> None:
    order = an_order(account)
    position = held(account, "AAPL", "100")
    for cause in (f"{order.pk}/2/restored", f"{order.pk}/3/reversed", f"{order.pk}/e-1"):
        booked(position, cause)
    booked(position, "rebuild/2/AAPL")

    page = browse("Viewer").get(f"/positions/position/{position.pk}/change/").content.decode()

    link = f'<a href="/orders/order/{order.pk}/change/">'
    assert f"{link}Brought back by an order</a>" in page
    assert f"{link}Late fill, in the figures taken over already</a>" in page
    assert f"{link}Order fill</a>" in page
    assert '<a href="/reconciliation/rebuild/2/change/">Emergency rebuild 2</a>' in page


def booked(position: Position, cause: str) -> None:
    with transaction.atomic():
        book(
            lock_position(position.account_id, position.symbol),
            kind=LedgerEntry.Kind.CORRECTION,
            cause=cause,
            qty=Decimal(-1),
            price=None,
            occurred_at=timezone.now(),
        )
