"""What became of orders at the broker, as their rows tell it, and what the breaker makes of it."""

import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from orders import jobs, lifecycle, outcome_jobs, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.outcomes import distances_of, judge_outcomes, outcomes_of
from orders.sync import ensure_open_book
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert
from reconciliation.run import reconcile
from risk import trading
from risk.breaker import Outcome
from risk.figures import database_now
from risk.models import TradingChange, TradingControl
from tests import conftest, other_process
from tests.conftest import Api, hold, quote
from tests.orders.conftest import ReportMaker
from tests.risk.trading_desk import cool_down, judged, tries, trip
from tests.simulator_server import SimulatorServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.default_limits]
BROKER = Origin(Source.SUBMIT, "broker")
RESOLVER = Origin(Source.SUBMIT, "resolver", "Its sender ended before the broker's answer.")
NO_FUNDS = {"code": "40310000", "message": "insufficient buying power", "fields": {}}
NO_SHARES = {"code": "40310000", "message": "insufficient qty available", "fields": {}}

Sent = Callable[..., Order]


@pytest.fixture
def sent(strategy: Strategy) -> Sent:
    """An order handed to the broker, a second ago unless told otherwise."""

    def make(*, ago: float = 1, **changes: Any) -> Order:
        at = database_now() - timedelta(seconds=ago)
        name = f"order-{uuid4()}"
        values: dict[str, Any] = {
            "account": strategy.account,
            "strategy": strategy,
            "client_order_id": name,
            "fingerprint": "f" * 64,
            "symbol": "OKE",
            "side": "buy",
            "qty": 100,
            "type": "limit",
            "time_in_force": "day",
            "limit_price": 70,
            "correlation_id": "test",
            "attempts": 1,
            **dict.fromkeys(("submitted_at", "judged_at", "created_at"), at),
        }
        order = Order(**{**values, **changes, "id": uuid4()})
        with transaction.atomic():
            lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, "rsi"))
        return order

    return make


@pytest.fixture
def taken(report: ReportMaker) -> Callable[[Order], Order]:
    """The broker has taken the order."""

    def take(order: Order, status: str = "new") -> Order:
        named = {"client_order_id": order.client_order_id, "broker_order_id": f"b-{order.pk}"}
        return lifecycle.observe(order.pk, report(status, at=len(status), **named), BROKER)

    return take


def refused(order: Order, rejection: dict[str, Any] = NO_SHARES) -> Order:
    return lifecycle.transition(order.pk, statuses.REJECTED, BROKER, rejection=rejection)


def lost(order: Order, origin: Origin = BROKER) -> Order:
    return lifecycle.transition(order.pk, statuses.UNRESOLVED, origin)


def given_up(order: Order) -> Order:
    return lifecycle.transition(order.pk, statuses.FAILED, RESOLVER)


def outcomes(account: BrokerAccount, *, since: float = 300) -> list[Outcome]:
    return outcomes_of(account.pk, database_now() - timedelta(seconds=since))


def breaker() -> str:
    control = TradingControl.objects.first()
    return control.breaker if control else "closed"


# --- what counts ---------------------------------------------------------------------------------


def test_an_order_that_the_broker_took_is_a_success_when_it_said_so(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    order = taken(sent())

    (outcome,) = outcomes(account)
    assert outcome == Outcome(at=order.acknowledged_at, failed=False, order_id=order.pk)  # type: ignore[arg-type]


def test_a_refusal_is_a_failure_with_the_brokers_words(account: BrokerAccount, sent: Sent) -> None:
    order = refused(sent())

    (outcome,) = outcomes(account)
    assert (outcome.order_id, outcome.failed, outcome.funds) == (order.pk, True, False)
    assert outcome.message == "insufficient qty available"


def test_a_refusal_for_funds_is_known_by_its_message(account: BrokerAccount, sent: Sent) -> None:
    refused(sent(), NO_FUNDS)

    (outcome,) = outcomes(account)
    assert outcome.funds


def test_an_order_that_is_rejected_after_it_was_taken_is_a_failure(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    order = taken(taken(sent()), "rejected")
    assert order.status == "rejected"

    (outcome,) = outcomes(account)
    assert outcome.failed


@pytest.mark.parametrize(("ago", "failures"), [(29, 0), (31, 1)])
def test_an_order_that_stays_unresolved_for_half_a_minute_has_failed(
    account: BrokerAccount, sent: Sent, ago: float, failures: int
) -> None:
    order = lost(sent(ago=ago))

    found = outcomes(account)
    assert len(found) == failures
    if found:
        assert order.submitted_at is not None
        assert found[0].at == order.submitted_at + timedelta(seconds=30)


def test_an_order_that_was_given_up_counts_once_however_long_it_was_unresolved(
    account: BrokerAccount, sent: Sent
) -> None:
    order = lost(sent(ago=100))
    (before,) = outcomes(account)

    given_up(order)

    assert outcomes(account) == [before]


def test_an_order_that_was_given_up_early_has_failed_at_once(
    account: BrokerAccount, sent: Sent
) -> None:
    order = given_up(lost(sent(ago=12)))

    (outcome,) = outcomes(account)
    assert (outcome.failed, outcome.at) == (True, order.updated_at)


def test_an_answer_lost_before_the_time_asked_for_may_count_within_it(
    account: BrokerAccount, sent: Sent
) -> None:
    order = lost(sent(ago=45))
    Order.objects.filter(pk=order.pk).update(updated_at=order.submitted_at)

    assert [outcome.order_id for outcome in outcomes(account, since=20)] == [order.pk]
    assert outcomes(account, since=10) == []


def test_an_order_that_was_found_after_all_is_a_success(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    taken(lost(sent(ago=100)))

    (outcome,) = outcomes(account)
    assert not outcome.failed


def test_an_order_whose_sender_died_says_nothing_of_the_broker(
    account: BrokerAccount, sent: Sent
) -> None:
    given_up(lost(sent(ago=100), RESOLVER))
    lost(sent(ago=100), RESOLVER)
    sent(ago=100)

    assert outcomes(account) == []


def test_our_own_denial_is_none(account: BrokerAccount, strategy: Strategy, sent: Sent) -> None:
    order = sent()
    lifecycle.transition(order.pk, statuses.DENIED, Origin(Source.RISK, "risk"))

    assert outcomes(account) == []


def test_replacements_and_dependents_count_and_a_pair_counts_once(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    parent = taken(sent())
    replacement = refused(sent(replaces=parent))
    dependent = refused(sent(parent=parent, role="dependent"))
    pair = sent(parent=parent, role="take_profit", order_class="oco")
    leg = sent(parent=parent, role="stop_loss", leg_of=pair, stop_price=60)
    refused(pair)
    leg.refresh_from_db()
    assert leg.status == "rejected"

    failed = {outcome.order_id for outcome in outcomes(account) if outcome.failed}
    assert failed == {replacement.pk, dependent.pk, pair.pk}


def test_what_was_found_at_the_broker_is_no_outcome_of_ours(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order], report: ReportMaker
) -> None:
    order = taken(sent())
    successor = report("new", client_order_id="theirs", broker_order_id="b-theirs")
    found = lifecycle.adopt(order, successor)
    lifecycle.observe(found.pk, successor, BROKER)

    assert [outcome.order_id for outcome in outcomes(account)] == [order.pk]


def test_outcomes_are_the_accounts_and_of_the_time_asked_for(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    taken(sent())
    refused(sent())
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")

    assert outcomes(other) == []
    assert outcomes(account, since=-1) == []
    assert [outcome.failed for outcome in outcomes(account)] == [False, True]


def test_outcomes_of_many_orders_are_read_in_three_queries(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    for _ in range(5):
        taken(sent())
        refused(sent())
        lost(sent(ago=60))

    with CaptureQueriesContext(connection) as queries:
        assert len(outcomes_of(account.pk, database_now() - timedelta(seconds=300))) == 15

    assert len(queries) == 4  # the clock twice, what was taken, what was not


# --- what the breaker makes of it ----------------------------------------------------------------


def test_one_refusal_for_funds_opens_the_breaker(account: BrokerAccount, sent: Sent) -> None:
    refused(sent(), NO_FUNDS)

    judge_outcomes(account.pk)

    (reason,) = trading.current(account.pk).reasons
    assert (reason.code, reason.state) == ("refused_for_funds", "reducing")


def test_five_failures_in_a_row_open_it_and_four_do_not(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    taken(sent())
    for _ in range(4):
        refused(sent())
    judge_outcomes(account.pk)
    assert breaker() == "closed"

    refused(sent())
    judge_outcomes(account.pk)

    assert breaker() == "open"


def test_a_success_before_the_window_still_ends_the_row(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    spread([refused(sent()) for _ in range(3)], minutes=20)
    spread([taken(sent())], minutes=10)
    refused(sent())
    refused(sent())

    judge_outcomes(account.pk)

    assert breaker() == "closed"


def test_failures_in_a_row_count_beyond_the_window(account: BrokerAccount, sent: Sent) -> None:
    spread([refused(sent()) for _ in range(4)], minutes=20)
    refused(sent())

    judge_outcomes(account.pk)

    assert breaker() == "open"


def spread(orders: list[Order], *, minutes: float) -> None:
    """Plays that these outcomes are so old."""
    at = database_now() - timedelta(minutes=minutes)
    for order in orders:
        acknowledged = None if order.acknowledged_at is None else at
        Order.objects.filter(pk=order.pk).update(updated_at=at, acknowledged_at=acknowledged)


def test_more_than_one_in_ten_failing_opens_it(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    refused(sent())
    for _ in range(9):
        taken(sent())
    judge_outcomes(account.pk)
    assert breaker() == "closed"

    refused(sent())
    taken(sent())
    judge_outcomes(account.pk)

    assert [reason.code for reason in trading.current(account.pk).reasons] == ["error_rate"]


def test_where_nothing_failed_it_is_cheap(
    account: BrokerAccount, sent: Sent, taken: Callable[..., Order]
) -> None:
    taken(sent())
    judged(account)

    with CaptureQueriesContext(connection) as queries:
        judge_outcomes(account.pk)

    assert len(queries) == 3  # the clock, the breaker, the failures


def test_judged_by_eight_at_once_it_opens_once(account: BrokerAccount, sent: Sent) -> None:
    for _ in range(5):
        refused(sent())

    def judge() -> None:
        judge_outcomes(account.pk)
        connection.close()

    threads = [threading.Thread(target=judge) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert TradingControl.objects.get().trips == 1
    assert TradingChange.objects.count() == 1


# --- the order that tries ------------------------------------------------------------------------


@pytest.fixture
def trying(account: BrokerAccount, sent: Sent) -> Order:
    """The breaker is half-open, and this order tries."""
    trip(account)
    cool_down(account)
    order = sent()
    assert tries(account, order.pk)
    return order


def test_the_order_that_tries_closes_the_breaker_when_it_is_taken(
    account: BrokerAccount, trying: Order, taken: Callable[..., Order]
) -> None:
    judge_outcomes(account.pk)
    assert breaker() == "half_open"

    taken(trying)
    judge_outcomes(account.pk)

    assert breaker() == "closed"


def test_the_order_that_tries_opens_it_again_when_it_is_refused(
    account: BrokerAccount, trying: Order
) -> None:
    refused(trying)

    judge_outcomes(account.pk)

    control = TradingControl.objects.get()
    assert (control.breaker, control.trips, control.probe) == ("open", 2, None)


def test_the_order_that_tries_opens_it_again_when_its_answer_stays_lost(
    account: BrokerAccount, trying: Order
) -> None:
    lost(trying)
    judge_outcomes(account.pk)
    assert breaker() == "half_open"

    age(trying, seconds=31)
    judge_outcomes(account.pk)

    assert breaker() == "open"


def denied(order: Order) -> None:
    lifecycle.transition(order.pk, statuses.DENIED, Origin(Source.RISK, "risk"))


def unwanted(order: Order) -> None:
    lost(order)
    lifecycle.request_cancel([order.pk], Origin(Source.API, "rsi"))
    given_up(order)


def died_and_given_up(order: Order) -> None:
    age(order, seconds=60)
    given_up(lost(order, RESOLVER))


def waits_again(order: Order) -> None:
    lifecycle.transition(order.pk, statuses.WAITING, BROKER, submitted_at=None, attempts=0)


def cancelled_before_it_was_sent(order: Order) -> None:
    waits_again(order)
    lifecycle.request_cancel([order.pk], Origin(Source.API, "rsi"))


def undecided_for_ever(order: Order) -> None:
    lost(order, RESOLVER)
    age(order, seconds=121)


def sender_gone(order: Order) -> None:
    age(order, seconds=121)


@pytest.mark.parametrize(
    "end",
    [
        denied,
        unwanted,
        died_and_given_up,
        waits_again,
        cancelled_before_it_was_sent,
        undecided_for_ever,
        sender_gone,
    ],
)
def test_an_order_that_ends_without_an_outcome_makes_room_for_another(
    account: BrokerAccount, trying: Order, end: Callable[[Order], None]
) -> None:
    end(trying)

    judge_outcomes(account.pk)
    judge_outcomes(account.pk)

    control = TradingControl.objects.get()
    assert (control.breaker, control.probe, control.trips) == ("half_open", None, 1)
    assert judged(account).may_probe


def test_an_order_that_was_never_stored_makes_room(account: BrokerAccount) -> None:
    trip(account)
    cool_down(account)
    assert tries(account, uuid4())

    judge_outcomes(account.pk)

    assert judged(account).may_probe


def age(order: Order, *, seconds: float) -> None:
    """Plays that the order was judged and sent so long ago."""
    at = database_now() - timedelta(seconds=seconds)
    Order.objects.filter(pk=order.pk).update(judged_at=at, submitted_at=at, created_at=at)


# --- the clock -----------------------------------------------------------------------------------


def test_the_clock_brings_all_that_is_due(account: BrokerAccount, sent: Sent) -> None:
    for _ in range(5):
        refused(sent())
    outcome_jobs.breaker()
    assert breaker() == "open"

    cool_down(account)
    outcome_jobs.breaker()
    assert breaker() == "half_open"
    alert = Alert.objects.get(code="breaker_open", ended_at=None)
    assert "the next order may try" in alert.message

    order = sent()
    assert tries(account, order.pk)
    denied(order)
    outcome_jobs.breaker()
    assert judged(account).may_probe


def test_one_account_that_can_not_be_judged_does_not_hold_up_the_others(
    account: BrokerAccount, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BrokerAccount.objects.create(name="a-first", broker="simulator", mode="simulated")
    real = trading.review

    def review(account_id: int) -> None:
        if account_id == first.pk:
            raise RuntimeError("a row that nobody foresaw")
        real(account_id)

    monkeypatch.setattr(trading, "review", review)
    for _ in range(5):
        refused(sent())

    outcome_jobs.breaker()

    assert TradingControl.objects.get(account=account).breaker == "open"


# --- over HTTP -----------------------------------------------------------------------------------


BUY = {"symbol": "TSLA", "side": "buy", "qty": "1", "limit_price": "250.00"}
SELL = {"symbol": "OKE", "side": "sell", "qty": "39", "limit_price": "71.00"}


@pytest.fixture
def trader(sim: SimulatorServer, account: BrokerAccount, api: Api) -> Api:
    """A strategy of an account that holds 39 OKE; TSLA is quoted above where it buys."""
    hold(sim, "OKE", "39", "70")
    quote(sim, "OKE", "70")
    quote(sim, "TSLA", "260")
    reconcile(account)
    return api


def test_after_a_refusal_for_funds_only_what_reduces_reaches_the_broker(
    sim: SimulatorServer, trader: Api
) -> None:
    sim.post("/sim/faults", {"kind": "no_funds"})
    assert trader.post("/orders", BUY).json()["code"] == "broker_rejected"

    denied_one = trader.post("/orders", {**BUY, "qty": "2"})
    assert denied_one.status_code == 422
    (violation,) = denied_one.json()["violations"]
    assert "insufficient buying power" in violation["message"]
    assert trader.post("/orders", {**SELL, "qty": "40"}).status_code == 422
    assert trader.post("/orders", SELL).status_code == 201

    assert [each["body"]["symbol"] for each in posts(sim)] == ["TSLA", "OKE"]
    assert trader.post("/orders/cancel-all", {"reason": "Enough."}).status_code == 200


def test_the_first_order_after_the_cool_down_tries_and_closes_the_breaker(
    sim: SimulatorServer, account: BrokerAccount, trader: Api
) -> None:
    trip(account)
    cool_down(account)
    assert trader.post("/orders", SELL).status_code == 201  # it reduces: it need not try
    assert breaker() == "half_open"

    assert trader.post("/orders", BUY).status_code == 201

    assert breaker() == "closed"
    assert trader.post("/orders", {**BUY, "qty": "2", "limit_price": "249.00"}).status_code == 201


def test_the_first_order_after_the_cool_down_opens_it_again_when_it_is_refused(
    sim: SimulatorServer, account: BrokerAccount, trader: Api
) -> None:
    trip(account)
    cool_down(account)
    sim.post("/sim/faults", {"kind": "no_funds"})

    assert trader.post("/orders", BUY).json()["code"] == "broker_rejected"

    control = TradingControl.objects.get()
    assert (control.breaker, control.trips) == ("open", 2)
    assert trader.post("/orders", {**BUY, "qty": "2"}).json()["code"] == "order_denied"
    assert len(posts(sim)) == 1


def test_a_process_that_dies_while_its_order_tries_leaves_it_trying(
    sim: SimulatorServer, account: BrokerAccount, strategy: Strategy, trader: Api
) -> None:
    trip(account)
    cool_down(account)
    _, token = ApiToken.issue(strategy, SCOPES)
    process = other_process.start(
        *("tests.risk.trading_desk", str(account.pk), "order", token),
        broker=sim.url,
        ORDINIS_FAILPOINT="send.committed",
    )
    assert process.wait(30) == -signal.SIGKILL
    order = Order.objects.get()
    assert (order.status, TradingControl.objects.get().probe) == ("submitting", order.pk)

    another = {**BUY, "symbol": "KO", "limit_price": "60.00"}
    assert trader.post("/orders", another).json()["code"] == "order_denied"
    judge_outcomes(account.pk)
    assert TradingControl.objects.get().probe == order.pk

    # The resolver finds that it never arrived, and sends it again.
    Order.objects.update(submitted_at=database_now() - timedelta(seconds=20))
    jobs.resolve()
    missed = database_now() - timedelta(seconds=11)
    Order.objects.update(lookups_missed=2, first_missed_at=missed)
    jobs.resolve()
    judge_outcomes(account.pk)

    order.refresh_from_db()
    assert order.status in ("pending_new", "accepted", "new")
    assert breaker() == "closed"
    assert len(posts(sim)) == 1


def posts(sim: SimulatorServer) -> list[dict[str, Any]]:
    """The order requests that reached the broker."""
    return conftest.sent(sim)


def test_the_state_is_told_with_reasons_and_distances(
    sim: SimulatorServer, account: BrokerAccount, api: Api, sent: Sent
) -> None:
    reconcile(account)
    for _ in range(5):
        refused(sent())
    judge_outcomes(account.pk)

    answer = api.get("/risk/state")

    assert answer.status_code == 200
    told = answer.json()
    assert (told["trading_state"], told["breaker"]) == ("reducing", "open")
    assert told["until"].endswith("Z")
    (reason,) = told["reasons"]
    assert reason["message"].startswith("The last 5 orders all failed at the broker")
    assert (reason["code"], reason["limit"], reason["actual"]) == ("consecutive_failures", "5", "5")
    distances = {each["code"]: each for each in told["distances"]}
    assert distances["consecutive_failures"] == {
        "code": "consecutive_failures",
        "actual": "5",
        "limit": "5",
        "unit": "",
        "reached": True,
    }
    assert distances["buying_power_low"]["limit"] == "1000"


def test_the_distances_are_those_of_what_still_counts(
    account: BrokerAccount, trying: Order, taken: Callable[..., Order], sent: Sent
) -> None:
    refused(sent())
    taken(trying)
    judge_outcomes(account.pk)
    assert breaker() == "closed"

    told = {each.code: each.actual for each in distances_of(account.pk)}

    assert told["consecutive_failures"] == 0
    assert told["error_rate"] is None


def test_books_that_were_taken_over_count_as_compared(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    ensure_open_book(account)

    account.refresh_from_db()
    assert account.books_as_of is not None
    assert account.opened_at is not None
    assert account.books_as_of <= account.opened_at


def test_a_complete_comparison_of_the_books_is_noted_and_a_failed_one_is_not(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    reconcile(account)
    account.refresh_from_db()
    first = account.books_as_of
    assert first is not None

    sim.post("/sim/faults", {"kind": "status_before", "path": "/v2/positions", "count": 20})
    reconcile(account)
    reconcile(account, dry_run=True)
    account.refresh_from_db()
    assert account.books_as_of == first

    sim.delete("/sim/faults")
    reconcile(account, dry_run=True)
    account.refresh_from_db()
    assert account.books_as_of == first
    reconcile(account)
    account.refresh_from_db()
    assert account.books_as_of is not None
    assert account.books_as_of > first
