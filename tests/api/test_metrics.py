"""`/metrics`: what it tells of known rows, of every account alike, in a constant number of
questions and without a symbol."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from orders.judgement import reserved
from orders.models import Order, StreamMessage
from ordinis import metrics
from ordinis.accounts.models import BrokerAccount, RequestBudget, Strategy
from ordinis.alerts.models import Alert, AlertChannel, AlertMessage, end_alert, raise_alert
from ordinis.models import Heartbeat, JobRun
from positions.models import Position
from reconciliation.models import Break, Correction, Kind
from reconciliation.run import reconcile
from risk import trading
from risk.figures import database_now
from tests.conftest import Api, quote
from tests.reconciliation.days import compared, placed
from tests.simulator_server import SimulatorServer

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape() -> Samples:
    """Every sample of the page, by its name and labels."""
    answer = Client().get("/metrics")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"ordinis_{name}", tuple(sorted({"account": "main", **labels}.items()))]


def plain(samples: Samples, name: str, **labels: str) -> float:
    """Of what is no account's."""
    return samples[f"ordinis_{name}", tuple(sorted(labels.items()))]


def _break(account: BrokerAccount, symbol: str, **given: Any) -> Break:
    now = database_now()
    values: dict[str, Any] = {
        "kind": Kind.QUANTITY,
        "subject": f"position/{symbol}",
        "symbol": symbol,
        "local": 100,
        "broker": 60,
        "value": Decimal(100),
        "severity": "warning",
        "first_seen": now,
        "last_seen": now,
    }
    return Break.objects.create(account=account, **{**values, **given})


def test_a_new_account_has_zeros_and_no_made_up_ages(account: BrokerAccount) -> None:
    samples = scrape()

    assert value(samples, "orders_open") == 0
    assert value(samples, "breaks_open", kind="zombie", severity="critical") == 0
    assert value(samples, "drift_dollars", of="positions") == 0
    for absent in ("reconciliation_last_complete_age_seconds", "broker_figures_age_seconds"):
        assert (f"ordinis_{absent}", (("account", "main"),)) not in samples
    assert {labels for name, labels in samples if name == "ordinis_scrape_part_success"} == {
        (("part", part),) for part in metrics.PARTS
    }
    assert {plain(samples, "scrape_part_success", part=part) for part in metrics.PARTS} == {1}


def test_how_old_the_last_comparison_is_and_how_often_one_is_due(account: BrokerAccount) -> None:
    BrokerAccount.objects.update(
        books_as_of=database_now() - timedelta(seconds=95),
        as_of=database_now() - timedelta(seconds=40),
    )

    samples = scrape()

    age = value(samples, "reconciliation_last_complete_age_seconds")
    assert 95 <= age < 105
    assert value(samples, "reconciliation_cadence_seconds") == account.cadence.total_seconds()
    assert value(samples, "reconciliation_watched") == 1
    assert 40 <= value(samples, "broker_figures_age_seconds") < 50


def test_open_breaks_by_kind_and_severity_with_the_oldest_and_the_drift(
    account: BrokerAccount,
) -> None:
    now = database_now()
    _break(account, "KO", value=Decimal("-250.50"))
    _break(account, "PEP", value=Decimal(100), first_seen=now - timedelta(hours=1))
    _break(account, "OKE", value=None, severity="critical")
    _break(account, "", kind=Kind.CASH, subject="account/cash", value=Decimal("-12.34"))
    _break(account, "TSLA", value=Decimal(9999), status="healed", ended_at=now)

    samples = scrape()

    assert value(samples, "breaks_open", kind="quantity", severity="warning") == 2
    assert value(samples, "breaks_open", kind="quantity", severity="critical") == 1
    assert value(samples, "breaks_open", kind="cash", severity="warning") == 1
    assert 3600 <= value(samples, "break_oldest_age_seconds") < 3610
    assert value(samples, "drift_dollars", of="positions") == 350.5
    assert value(samples, "drift_dollars", of="cash") == 12.34
    assert value(samples, "breaks_without_value") == 1


def test_corrections_that_wait(account: BrokerAccount) -> None:
    now = database_now()
    position = Position.objects.create(account=account, symbol="KO")
    for symbol, status in (("KO", "proposed"), ("PEP", "proposed"), ("OKE", "rejected")):
        Correction.objects.create(
            account=account,
            subject=_break(account, symbol),
            position=position,
            local=1,
            broker=0,
            watermark=now,
            expires_at=now,
            status=status,
        )

    assert value(scrape(), "corrections_waiting") == 2


def test_comparisons_of_the_last_hour(account: BrokerAccount) -> None:
    now = database_now()
    compared(account, now - timedelta(minutes=5), broker_seconds=Decimal("0.1"))
    compared(account, now - timedelta(minutes=4), duration_seconds=Decimal("1.3"))
    compared(account, now - timedelta(minutes=3), complete=False, duration_seconds=Decimal(10))
    compared(account, now - timedelta(minutes=61), duration_seconds=Decimal(30))

    samples = scrape()

    assert value(samples, "reconciliation_runs_last_hour", result="complete") == 2
    assert value(samples, "reconciliation_seconds_last_hour", result="complete") == 1.5
    longest = value(samples, "reconciliation_longest_seconds_last_hour", result="complete")
    assert longest == 1.3
    asking = value(samples, "reconciliation_broker_seconds_last_hour", result="complete")
    assert asking == 0.1
    assert value(samples, "reconciliation_runs_last_hour", result="incomplete") == 1


def test_orders_of_today_by_outcome_and_what_is_open(strategy: Strategy) -> None:
    now = database_now()
    for status in ("filled", "canceled", "replaced", "new", "partially_filled", "denied"):
        placed(strategy, status, at=now)
    placed(strategy, "unresolved", at=now, submitted_at=now - timedelta(seconds=70))
    placed(strategy, "filled", at=now - timedelta(hours=25))
    placed(strategy, "new", at=now - timedelta(hours=25))

    samples = scrape()

    counts = {
        outcome: value(samples, "orders_today", outcome=outcome)
        for outcome in ("filled", "cancelled", "open", "denied", "unresolved", "rejected")
    }
    assert counts == {
        "filled": 1,
        "cancelled": 2,
        "open": 2,
        "denied": 1,
        "unresolved": 1,
        "rejected": 0,
    }
    assert value(samples, "orders_open") == 4
    assert value(samples, "orders_unresolved") == 1
    assert 70 <= value(samples, "order_unresolved_oldest_age_seconds") < 80


def test_denials_of_today_by_code(strategy: Strategy) -> None:
    now = database_now()
    both = [{"code": "max_positions"}, {"code": "insufficient_buying_power"}]
    placed(strategy, "denied", at=now, violations=both)
    placed(strategy, "denied", at=now, violations=both[:1])
    placed(strategy, "denied", at=now - timedelta(hours=25), violations=both)

    samples = scrape()

    assert value(samples, "denials_today", code="max_positions") == 2
    assert value(samples, "denials_today", code="insufficient_buying_power") == 1


@pytest.mark.django_db(transaction=True)
def test_a_real_order_is_told_with_what_it_reserves(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    order: Callable[..., dict[str, Any]],
    wide_limits: None,
) -> None:
    quote(sim, "TSLA", "260")
    assert api.post("/orders", order()).status_code == 201
    reconcile(account)
    account.refresh_from_db()
    # An order of the same moment, which the figures may lack: 10 at 70 dollars.
    late = placed(
        Strategy.objects.get(name="rsi"),
        "new",
        at=database_now(),
        qty=Decimal(10),
        worst_price=Decimal(70),
    )

    samples = scrape()

    assert account.as_of is not None
    assert late.acknowledged_at is not None
    assert late.acknowledged_at > account.as_of
    assert value(samples, "reserved_dollars") == float(reserved(account.pk, account.as_of))
    assert value(samples, "reserved_dollars") >= 700
    assert value(samples, "orders_open") == 2
    assert value(samples, "reconciliation_last_complete_age_seconds") < 30


def test_what_each_account_reserves_is_counted_by_its_own_moment(account: BrokerAccount) -> None:
    now = database_now()
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    for each, as_of in ((account, now), (other, now + timedelta(hours=1))):
        BrokerAccount.objects.filter(pk=each.pk).update(as_of=as_of)
        placed(
            Strategy.objects.create(account=each, name="rsi"),
            "new",
            at=now,
            worst_price=Decimal(70),
        )

    samples = scrape()

    assert value(samples, "reserved_dollars") == 7000
    assert value(samples, "reserved_dollars", account="other") == 0


def test_trading_state_and_breaker_are_one_of_their_states(account: BrokerAccount) -> None:
    now = database_now()
    BrokerAccount.objects.update(opened_at=now, books_as_of=now)
    trading.set_state(account.pk, "halted", reason="A test.", actor="ann")

    samples = scrape()

    states = {
        state: value(samples, "trading_state", ordinis_trading_state=state)
        for state in ("active", "reducing", "halted")
    }
    breaker = {
        state: value(samples, "breaker_state", ordinis_breaker_state=state)
        for state in ("closed", "open", "half_open")
    }
    assert states == {"active": 0, "reducing": 0, "halted": 1}
    assert breaker == {"closed": 1, "open": 0, "half_open": 0}


def test_processes_jobs_and_the_stream_give_their_ages(account: BrokerAccount) -> None:
    now = database_now()
    Heartbeat.objects.create(name="worker", last_seen_at=now - timedelta(seconds=7))
    JobRun.objects.create(
        name="poll",
        last_finished_at=now - timedelta(seconds=20),
        last_duration=0.25,
        failures=3,
    )
    for number, (seconds, processed) in enumerate(((100, now), (50, now), (60, None))):
        StreamMessage.objects.create(
            account=account,
            event_id=f"01{number}" if number < 2 else None,
            received_at=now - timedelta(seconds=seconds),
            processed_at=processed,
            body={},
        )

    samples = scrape()

    assert 7 <= plain(samples, "process_last_seen_age_seconds", process="worker") < 17
    assert 20 <= plain(samples, "job_last_finished_age_seconds", job="poll") < 30
    assert plain(samples, "job_last_duration_seconds", job="poll") == 0.25
    assert plain(samples, "job_failures_in_a_row", job="poll") == 3
    assert 50 <= value(samples, "stream_last_message_age_seconds") < 60
    assert value(samples, "stream_messages_waiting") == 1
    assert 60 <= value(samples, "stream_oldest_waiting_age_seconds") < 70


def test_alerts_that_stand_and_the_channels_that_tell_of_them(account: BrokerAccount) -> None:
    severity = Alert.Severity.CRITICAL
    for account_id in (account.pk, None):
        for subject in ("stands", "over"):
            raise_alert(account_id, code="c", subject=subject, severity=severity, message="m")
        end_alert(account_id, code="c", subject="over")
    AlertChannel.objects.create(name="desk", failures=4)
    for state in ("pending", "pending", "sent"):
        AlertMessage.objects.create(channel="desk", kind="test", severity="warning", state=state)

    samples = scrape()

    assert value(samples, "alerts_open", severity="critical") == 1
    assert value(samples, "alerts_open", account="", severity="critical") == 1
    assert plain(samples, "alert_messages_waiting", channel="desk") == 2
    assert plain(samples, "alert_channel_failures_in_a_row", channel="desk") == 4


def test_requests_held_back_are_a_counter(account: BrokerAccount) -> None:
    RequestBudget.objects.create(account=account, limit=200, remaining=150, held_back=6)

    samples = scrape()

    assert value(samples, "broker_requests_held_back_total") == 6
    assert value(samples, "broker_requests_remaining") == 150


def _busy(account: BrokerAccount) -> None:
    """A little of everything, under symbols and ids that must not come out."""
    now = database_now()
    strategy = Strategy.objects.create(account=account, name=f"s-{uuid4().hex[:6]}")
    BrokerAccount.objects.filter(pk=account.pk).update(as_of=now, books_as_of=now)
    for number in range(3):
        symbol = f"SECRET{number}"
        placed(strategy, "new", at=now, symbol=symbol, worst_price=Decimal(70))
        placed(strategy, "denied", at=now, symbol=symbol, violations=[{"code": "max_positions"}])
        _break(account, symbol)
        compared(account, now)
        raise_alert(
            account.pk,
            code="break_quantity",
            subject=symbol,
            severity=Alert.Severity.WARNING,
            message=symbol,
        )
        StreamMessage.objects.create(
            account=account, event_id=uuid4().hex, received_at=now, body={"symbol": symbol}
        )


def test_no_symbol_and_no_order_stands_on_the_page(account: BrokerAccount) -> None:
    _busy(account)

    page = Client().get("/metrics").content.decode()

    assert 'ordinis_orders_open{account="main"} 3.0' in page
    assert "SECRET" not in page
    for order in Order.objects.all():
        assert str(order.pk) not in page
        assert order.client_order_id not in page


def test_two_accounts_take_as_many_questions_as_one_and_each_is_told(
    account: BrokerAccount,
) -> None:
    def questions() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            scrape()
        return [query["sql"] for query in captured]

    _busy(account)
    of_one = questions()
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    _busy(other)
    placed(Strategy.objects.create(account=other, name="rsi"), "new", at=database_now())
    of_two = questions()
    samples = scrape()

    assert len(of_two) == len(of_one), "\n".join(of_two)
    assert len(of_two) <= 25
    assert value(samples, "orders_open") == 3
    assert value(samples, "orders_open", account="other") == 4


def test_an_account_of_another_broker_is_not_told(account: BrokerAccount) -> None:
    BrokerAccount.objects.create(name="elsewhere", broker="alpaca", mode="paper")

    labels = {label for _, each in scrape() for label in each}

    assert ("account", "main") in labels
    assert ("account", "elsewhere") not in labels


def test_a_part_that_can_t_be_read_leaves_the_others(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> Any:
        raise RuntimeError("no such table")

    monkeypatch.setitem(metrics.PARTS, "orders", broken)

    samples = scrape()

    assert plain(samples, "scrape_part_success", part="orders") == 0
    assert plain(samples, "scrape_part_success", part="reconciliation") == 1
    assert value(samples, "corrections_waiting") == 0


def test_every_family_says_what_it_is(account: BrokerAccount) -> None:
    page = Client().get("/metrics").content.decode()

    families = list(text_string_to_metric_families(page))
    assert len(families) > 30
    assert not [family.name for family in families if len(family.documentation) < 10]
    assert not [family.name for family in families if not family.name.startswith("ordinis_")]


def test_what_the_account_is_worth_is_not_told_without_a_login(account: BrokerAccount) -> None:
    worth = Decimal("52596.25")
    BrokerAccount.objects.update(equity=worth, cash=worth, buying_power=worth)

    assert "52596" not in Client().get("/metrics").content.decode()
