"""What the pages say: Today, an order, limits and tokens."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import transaction
from django.test import Client
from django.utils import timezone

from orders import lifecycle, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert, raise_alert
from ordinis.console import text
from reconciliation.models import Correction, ReconciliationReport
from risk.limits import change
from tests.console.conftest import Browse, held


def compared(account: BrokerAccount, ago: float) -> None:
    ReconciliationReport.objects.create(
        account=account,
        mode="manual",
        complete=True,
        started_at=timezone.now() - timedelta(seconds=ago),
        duration_seconds=Decimal("0.2"),
    )


def test_today_is_quiet_when_all_is_well(browse: Browse, account: BrokerAccount) -> None:
    held(account, "AAPL", "100")
    compared(account, ago=5)

    page = browse("Approver").get("/").content.decode()

    assert "All in order" in page
    assert "Book equals broker" in page
    assert 'badge amber"' not in page
    assert 'badge red"' not in page


@pytest.mark.parametrize(("mode", "told"), [("off", True), ("read_only", False)])
def test_today_says_that_an_account_is_not_compared(
    browse: Browse, account: BrokerAccount, mode: str, told: bool
) -> None:
    values = {"reconcile_mode": mode}
    change(account=account, strategy=None, values=values, reason="So be it.", actor="ann")
    compared(account, ago=5)

    page = browse("Viewer").get("/").content.decode()

    assert ("main is not compared with its broker" in page) is told
    assert ("All in order" in page) is not told
    assert ('id="unwatched-' in page and 'href="/risk/risklimits/"' in page) is told


def test_today_names_what_is_held_and_has_no_sector(browse: Browse, account: BrokerAccount) -> None:
    held(account, "ZZZZ", "100")
    compared(account, ago=5)

    page = browse("Viewer").get("/").content.decode()

    assert "1 symbol without a sector" in page
    assert "ZZZZ: held or on order, counted as Unknown." in page


def test_today_leads_an_approver_to_the_decision_and_a_viewer_to_the_evidence(
    browse: Browse, correction: Correction
) -> None:
    compared(correction.account, ago=5)
    address = f"/reconciliation/correction/{correction.pk}"

    assert f"{address}/decide/" in browse("Approver").get("/").content.decode()
    viewers = browse("Viewer").get("/").content.decode()
    assert f"{address}/change/" in viewers
    assert f"{address}/decide/" not in viewers
    assert "AAPL: −40 shares ($8,400.00)" in viewers


@pytest.mark.parametrize(
    ("ago", "words"), [(59, "Synced"), (61, "Sync is late:"), (91, "Sync has stopped:")]
)
def test_the_header_tells_an_old_sync_at_twice_and_three_times_the_cadence(
    browse: Browse, account: BrokerAccount, settings: LazySettings, ago: float, words: str
) -> None:
    settings.RECONCILE_SECONDS = 30.0
    compared(account, ago=ago)

    assert f"{words} <time" in browse("Viewer").get("/live/header/").content.decode()


def test_what_is_critical_stands_before_what_is_to_look_at(
    browse: Browse, correction: Correction
) -> None:
    raise_alert(
        correction.account_id,
        code="late_report",
        subject="x",
        severity=Alert.Severity.CRITICAL,
        message="Believed canceled, but the broker reports filled.",
    )
    page = browse("Viewer").get("/").content.decode()

    assert page.index("Late report") < page.index("AAPL: −40 shares")


def test_the_band_and_the_window_say_where_you_are(
    browse: Browse, account: BrokerAccount, settings: LazySettings
) -> None:
    client = browse("Viewer")
    for mode in ("simulated", "paper", "live"):
        settings.BROKER_MODE = mode
        for page in (client.get("/orders/order/"), Client().get("/login/")):
            assert f"<title>{mode.upper()} · " in page.content.decode()
            assert f'class="frame mode-{mode}"' in page.content.decode()


def denied(strategy: Strategy) -> Order:
    order = Order(
        account=strategy.account,
        strategy=strategy,
        client_order_id="rsi-1",
        fingerprint="",
        symbol="TSLA",
        side="buy",
        qty=Decimal(50),
        type="limit",
        time_in_force="day",
        limit_price=Decimal("249.93"),
        violations=[
            {
                "code": "insufficient_buying_power",
                "message": "Buying power: needs $12,496.50, has $3,432.62. <b>",
                "limit": "3432.62",
                "actual": "12496.5",
            }
        ],
        correlation_id="c0ffee",
    )
    origin = Origin(Source.RISK, "token rsi", "Too much.")
    with transaction.atomic():
        lifecycle.record_intent(order, statuses.DENIED, origin)
    return order


def test_the_page_of_a_denied_order_says_why_with_limit_and_actual(
    browse: Browse, strategy: Strategy
) -> None:
    order = denied(strategy)
    page = browse("Viewer").get(f"/orders/order/{order.pk}/change/").content.decode()

    assert "3,432.62" in page
    assert "12,496.5" in page
    assert "by token rsi (Risk checks)" in page
    assert "c0ffee" in page
    assert "3,432.62. &lt;b&gt;" in page  # what others wrote is never markup


def test_the_page_of_an_order_shows_its_parent_its_dependents_and_its_chain(
    browse: Browse, strategy: Strategy
) -> None:
    def stored(name: str, status: str, **values: Any) -> Order:
        order = Order(
            account=strategy.account,
            strategy=strategy,
            client_order_id=name,
            symbol="TSLA",
            qty=Decimal(50),
            time_in_force="day",
            correlation_id="c",
            **{"side": "buy", "type": "limit", "limit_price": Decimal(249), **values},
        )
        with transaction.atomic():
            lifecycle.record_intent(order, status, Origin(Source.API, "token rsi"))
        return order

    parent = stored("entry-1", "submitting")
    newer = stored("entry-2", "submitting", replaces=parent)
    exit_ = {"side": "sell", "parent": parent}
    stop = stored(
        "stop-1",
        "waiting",
        **exit_,
        role="stop_loss",
        type="stop",
        stop_price=Decimal(240),
        limit_price=None,
    )
    browser = browse("Viewer")

    entry = browser.get(f"/orders/order/{newer.pk}/change/").content.decode()
    exit_page = browser.get(f"/orders/order/{stop.pk}/change/").content.decode()

    assert "entry-1" in entry
    assert "Replaced by it" in entry
    assert "stop-1" in entry
    assert "Stop-loss" in entry
    assert "Its parent" in exit_page
    assert "$240.00" in exit_page
    assert "Nothing of it has been sent" in exit_page


def test_orders_are_found_by_state_symbol_day_and_search(
    browse: Browse, strategy: Strategy
) -> None:
    denied(strategy)
    client = browse("Viewer")
    today = timezone.localdate()
    for query, found in (
        ("state=denied", True),
        ("state=open", False),
        ("symbol=tsla", True),
        ("symbol=AAPL", False),
        (f"day={today}", True),
        (f"day={today - timedelta(days=1)}", False),
        (f"strategy={strategy.pk}&side=buy", True),
        ("side=sell", False),
        ("q=rsi-", True),
        ("q=c0ffee", True),
        ("q=nothing", False),
    ):
        page = client.get(f"/orders/order/?{query}").content.decode()
        assert ("rsi-1</a>" in page) is found, query


def test_a_token_is_shown_once_and_revoked_by_post(browse: Browse, strategy: Strategy) -> None:
    administrator = browse("Administrator")
    issued = administrator.post(
        "/accounts/apitoken/add/", {"strategy": strategy.pk, "scopes": ["read", "trade"]}
    )
    token = ApiToken.objects.get()
    secret = issued.content.decode().split('id="secret">')[1].split("<")[0]

    assert ApiToken.authenticate(secret) == token
    assert "no-store" in issued.headers["Cache-Control"]
    for path in ("/accounts/apitoken/", f"/accounts/apitoken/{token.pk}/change/"):
        assert secret not in administrator.get(path).content.decode()
    revoke = f"/accounts/apitoken/{token.pk}/revoke/"
    assert administrator.get(revoke).status_code == 405
    assert browse("Viewer").post(revoke).status_code == 403
    assert ApiToken.authenticate(secret) == token
    assert administrator.post(revoke).status_code == 302
    assert ApiToken.authenticate(secret) is None


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (text.shares(Decimal("1250.500000000")), "1,250.5"),
        (text.shares(Decimal("-100")), "−100"),
        (text.money(Decimal("52596")), "$52,596.00"),
        (text.price(Decimal("250.300000000")), "$250.30"),
        (text.price(Decimal("0.123450000")), "$0.12345"),
        (text.signed_shares(Decimal("-40")), "−40"),
        (text.signed_money(Decimal("8400")), "+$8,400.00"),
        (text.signed_shares(Decimal(0)), "0"),
        (text.money(None), "–"),
        (text.age(timedelta(seconds=250)), "4 min 10 s"),
        (text.span(timedelta(milliseconds=43)), "43 ms"),
        (text.status("partially_filled"), "Partially filled"),
    ],
)
def test_figures_are_written_the_same_way_everywhere(shown: str, words: str) -> None:
    assert shown == words
