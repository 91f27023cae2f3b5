"""The self-test of the risk controls: each fires, a broken one is found, and nothing stays."""

import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.apps import apps
from django.conf import LazySettings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F

from orders import (
    assets,
    idempotency,
    judgement,
    provocations,
    provocations_over_time,
    rates,
    selftest,
    submission,
    working,
)
from orders.models import Order
from orders.provocations import CONTROLS, Control
from orders.selftest_bench import Bench, Came
from orders.sync import ensure_open_book
from orders.working import WorkingOrders
from ordinis.accounts.models import BrokerAccount, RequestBudget
from ordinis.alerts.models import Alert
from ordinis.doctor import examine
from risk import breaker, checks, figures, trading
from risk.commitments import Committed
from risk.limits import change, in_force
from risk.models import SelfTest, TradingControl
from risk.states import TradingState
from tests import other_process
from tests.conftest import Api, hold, quote, sent
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.default_limits]

# Every limit that is off where nobody has set it.
_ALL_ON = {
    "max_net_exposure_pct": "120",
    "max_order_qty": "500",
    "max_order_notional": "20000",
    "allow_short": True,
    "allowed_symbols": "KO,TSLA",
    "blocked_symbols": "XOM",
    "allowed_sessions": "regular",
}


@pytest.fixture
def all_on(account: BrokerAccount) -> None:
    change(account=account, strategy=None, values=_ALL_ON, reason="All on.", actor="test")


def results(test: SelfTest) -> dict[str, dict[str, Any]]:
    return {each["control"]: each for each in test.results}


def off(test: SelfTest) -> set[str]:
    return {each["control"] for each in test.results if each["ok"] is None}


def ran(account: BrokerAccount) -> tuple[str, int]:
    """What the command prints, and with what it ends."""
    out = StringIO()
    try:
        call_command("risk_selftest", account=account.name, stdout=out)
    except SystemExit as end:
        return out.getvalue(), int(str(end.code))
    return out.getvalue(), 0


# --- it fires ---------------------------------------------------------------------------------


def test_each_control_in_force_fires_and_the_others_are_said_to_be_off(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    printed, ended = ran(account)

    test = selftest.last_selftest(account)
    assert test is not None
    assert ended == 0, printed
    assert test.passed
    assert off(test) == {
        *("max_net_exposure_pct", "max_order_qty", "max_order_notional", "auction hours"),
        *("blocked_symbols", "allowed_symbols", "allowed_sessions"),
        *(control.name for control in CONTROLS if control.name.startswith("short sale")),
    }
    assert "off     max_order_qty: max_order_qty is empty." in printed
    assert "fired   buying power: buy 1 SELFTEST, limit at 3960000.01" in printed
    assert len(test.results) == len(CONTROLS)


@pytest.mark.usefixtures("all_on")
def test_with_all_limits_on_and_a_full_book_each_control_fires_too(
    sim: SimulatorServer, account: BrokerAccount, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "MARGIN", timedelta(0))
    hold(sim, "KO", "40", "60")
    hold(sim, "TSLA", "-20", "250")
    quote(sim, "KO", "60")
    api.post("/orders", {"symbol": "KO", "side": "sell", "qty": "15", "limit_price": "70"})
    api.post("/orders", {"symbol": "TSLA", "side": "buy", "qty": "8", "limit_price": "200"})

    test = selftest.run(account, actor="test")

    assert test.passed, selftest.silent(test)
    assert off(test) == {"auction hours"}
    assert results(test)["free shares"]["sent"] == "sell 26 KO, limit at 10; 25 are free"
    assert "buy 13 TSLA" in results(test)["free shares: buying back"]["sent"]


@pytest.mark.parametrize("state", ["reducing", "halted"])
def test_each_control_fires_while_trading_is_not_active_too(
    sim: SimulatorServer, account: BrokerAccount, state: str
) -> None:
    trading.set_state(account.pk, state, reason="lunch", actor="anna")

    test = selftest.run(account, actor="test")

    assert test.passed, selftest.silent(test)
    assert trading.current(account.pk).state == state


def test_a_breaker_that_somebody_overrides_is_said_to_be_off(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    until_when = account.created_at + timedelta(hours=1)
    trading.override(account.pk, until=until_when, reason="known outage", actor="anna")

    test = selftest.run(account, actor="test")

    assert "anna overrides the breaker" in results(test)["breaker: error_rate"]["came"]
    assert {name for name in off(test) if name.startswith("breaker")} == {
        control.name for control in CONTROLS if control.name.startswith("breaker")
    }


@pytest.mark.usefixtures("wide_limits")
def test_a_limit_too_wide_to_be_reached_is_said_to_be_off(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    test = selftest.run(account, actor="test")

    assert test.passed, selftest.silent(test)
    assert "breaker: error_rate" in off(test)


def test_the_auction_hours_fire_at_a_broker_that_keeps_them(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    told = figures.ask(account)

    with transaction.atomic():
        locked = BrokerAccount.lock(account.pk)
        locked.mode = "paper"
        came = provocations._auction(Bench(locked, told, in_force(account.pk)))

    assert came.codes == ("auction_closed",)


# --- a broken control is found ----------------------------------------------------------------


@pytest.mark.usefixtures("all_on")
@pytest.mark.parametrize("rule", [*checks._RULES, checks.inputs], ids=lambda rule: rule.__name__)
def test_a_rule_that_finds_nothing_any_more_is_named(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch, rule: Any
) -> None:
    controls = _controls_of(rule)
    monkeypatch.setattr(rule, "check", lambda *_: iter(()))
    monkeypatch.setattr(selftest, "CONTROLS", controls)

    printed, ended = ran(account)

    test = selftest.last_selftest(account)
    assert test is not None
    assert selftest.silent(test) == [control.name for control in controls[:-1]]
    assert ended == 1
    assert all(control.name in printed.splitlines()[-1] for control in controls[:-1])


_CODES: dict[str, tuple[str, ...]] = {
    "trading_state": ("trading_reducing", "trading_halted"),
    "account": ("account_blocked", "account_suspended"),
    "rate": ("max_orders_per_minute",),
    "symbol": ("symbol_not_allowed",),
    "session": ("session_not_allowed",),
    "price": ("max_slippage_pct",),
    "order_size": ("max_order_qty", "max_order_notional", "order_too_small"),
    "unresolved": ("symbol_unresolved",),
    "wash_trade": ("wash_trade", "opposite_order_open"),
    "buying_power": ("insufficient_buying_power",),
    "quantity": ("insufficient_quantity",),
    "short_sale": (
        *("short_not_whole", "not_shortable", "reference_price_required"),
        "equity_too_small_to_short",
    ),
    "positions": ("max_positions",),
    "position": ("max_position_pct",),
    "exposure": ("max_exposure_pct", "max_net_exposure_pct"),
    "sector": ("max_sector_pct",),
    "inputs": ("order_unusable", "figures_unusable"),
}


def _controls_of(rule: Any) -> tuple[Control, ...]:
    """The controls that this rule is, and a last one that it is not."""
    codes = _CODES[rule.__name__.rpartition(".")[2]]
    found = [control for control in CONTROLS if set(control.expected) & set(codes)]
    return (*found, next(c for c in CONTROLS if c.name == "client_order_id"))


@pytest.mark.parametrize(
    ("place", "name", "broken", "silent"),
    [
        (judgement, "_barred", lambda *_: [], {"cancel of all"}),
        (judgement, "_cut", lambda question, _: (question.intent, []), {"reduce_only"}),
        (
            WorkingOrders,
            "committed",
            Committed(),
            {"buying power: reserved", "free shares: reserved"},
        ),
        (
            WorkingOrders,
            "against",
            lambda *_: (),
            {"wash trade", "opposite order"},
        ),
        (rates, "limited", lambda *_: None, {"rate counted", "rate counted, account"}),
        (
            idempotency,
            "alike",
            lambda *_: None,
            {"duplicate_guard", "duplicate_guard: quantity"},
        ),
        (idempotency, "named", lambda *_: None, {"client_order_id"}),
        (
            breaker,
            "trips",
            lambda *_: [],
            {
                "breaker: error_rate",
                "breaker: consecutive_failures",
                "breaker: refused_for_funds",
            },
        ),
        (breaker, "is_for_funds", lambda *_: False, {"breaker: refused_for_funds"}),
        (
            breaker,
            "levels",
            lambda **_: [],
            {"breaker: equity_drop", "breaker: buying_power_low"},
        ),
    ],
)
def test_what_else_is_broken_on_the_way_of_an_order_is_named(
    sim: SimulatorServer,
    account: BrokerAccount,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    broken: object,
    silent: set[str],
) -> None:
    monkeypatch.setattr(place, name, broken)
    few = {*silent, "max_sector_pct", "trading: halted"}
    monkeypatch.setattr(selftest, "CONTROLS", tuple(c for c in CONTROLS if c.name in few))

    test = selftest.run(account, actor="test")

    assert not test.passed
    assert set(selftest.silent(test)) == silent


def test_an_order_type_that_everybody_may_send_is_named(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never(Exception):
        """In the place of the refusal."""

    monkeypatch.setattr(submission, "OrderTypeNotEnabled", Never)

    silent = selftest.silent(selftest.run(account, actor="test"))

    assert silent == [c.name for c in CONTROLS if c.name.startswith("allowed_order_types")]


def test_a_state_that_stops_nothing_any_more_is_named(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trading, "under_lock", lambda *_: TradingState())

    silent = selftest.silent(selftest.run(account, actor="test"))

    assert {"trading: halted", "trading: reducing", "breaker: error_rate"} <= set(silent)


def test_a_control_that_breaks_down_is_named_with_its_error(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(checks.sector, "check", broken)
    monkeypatch.setattr(selftest, "ordinary", lambda _bench: Came("", ()))

    test = selftest.run(account, actor="test")

    assert results(test)["max_sector_pct"]["came"] == "ZeroDivisionError: by nothing"
    assert not test.passed


# --- nothing is sent, nothing stays -----------------------------------------------------------


def test_nothing_goes_to_the_broker_but_two_reads_and_nothing_stays_but_the_result(
    sim: SimulatorServer, account: BrokerAccount, api: Api
) -> None:
    api.post("/orders", {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "50"})
    before, known = _rows(), len(sim.get("/sim/log"))

    selftest.run(account, actor="test")

    asked = sim.get("/sim/log")[known:]
    assert sorted((each["method"], each["path"]) for each in asked) == [
        ("GET", "/v2/account"),
        ("GET", "/v2/positions"),
    ]
    after = _rows()
    assert len(after.pop(SelfTest)) == len(before.pop(SelfTest)) + 1
    assert after == before


def _rows() -> dict[type, list[dict[str, Any]]]:
    """All that is stored, in every table; how many requests are left is not ours to keep."""
    return {
        model: list(model._default_manager.order_by("pk").values())
        for model in apps.get_models(include_auto_created=True)
        if model is not RequestBudget
    }


def test_nothing_is_sent_even_where_no_guard_of_the_way_there_holds(
    sim: SimulatorServer,
    account: BrokerAccount,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensure_open_book(account)
    # As in a process that skips its assertions, whose figures are at hand.
    settings.FIGURES_MAX_AGE = 60
    monkeypatch.setattr(assets, "asset_of", lambda *_: None)
    monkeypatch.setattr(rates, "limited", lambda *_: None)
    monkeypatch.setattr(checks.rate, "check", lambda *_: iter(()))
    monkeypatch.setattr(idempotency, "named", lambda *_: None)

    test = selftest.run(account, actor="test")

    assert "rate counted" in selftest.silent(test)
    assert sent(sim) == []
    assert not Order.objects.exists()


def test_a_real_order_waits_and_is_not_judged_by_what_is_made_up(
    sim: SimulatorServer, account: BrokerAccount, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    halted, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []

    def halt(bench: Bench) -> Came:
        came = provocations_over_time.state("halted")(bench)
        halted.set()
        assert go_on.wait(20)
        return came

    def order() -> None:
        body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "50"}
        answers.append(api.post("/orders", body))
        connection.close()

    def test() -> None:
        selftest.run(account, actor="test")
        connection.close()

    monkeypatch.setattr(selftest, "CONTROLS", (Control("halt", ("trading_halted",), halt),))
    threads = [threading.Thread(target=test), threading.Thread(target=order)]
    threads[0].start()
    assert halted.wait(20)
    threads[1].start()
    until(_somebody_waits_for_a_lock)

    meanwhile = trading.current(account.pk).state
    go_on.set()
    for thread in threads:
        thread.join(20)

    assert meanwhile == "active"
    assert answers[0].status_code == 201, answers[0].content
    test_row = selftest.last_selftest(account)
    assert test_row is not None
    assert test_row.passed


def test_one_killed_in_the_middle_leaves_nothing_and_holds_up_nobody(
    sim: SimulatorServer, account: BrokerAccount, api: Api
) -> None:
    before = _rows()
    with transaction.atomic():
        # The same alert as that of the halt it makes up: it waits for us there, in the middle.
        Alert.objects.create(
            account=account, code="trading_halted", subject=account.name, severity="critical"
        )
        process = other_process.start("manage", "risk_selftest", broker=sim.url)
        until(_somebody_waits_for_a_lock, seconds=60)
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        transaction.set_rollback(True)

    body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": "50"}
    until(lambda: not _somebody_waits_for_a_lock())
    until(lambda: _rows() == before)
    assert trading.current(account.pk).state == "active"
    assert api.post("/orders", body).status_code == 201


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else one transaction sees no change
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )
        (count,) = cursor.fetchone()
    return bool(count)


# --- what it says -----------------------------------------------------------------------------


def test_without_the_broker_nothing_is_tested_and_nothing_stored(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    sim.stop()

    printed, ended = ran(account)

    assert ended == 1
    assert "NOT TESTED" in printed
    assert not SelfTest.objects.exists()


def test_figures_that_cant_be_used_test_nothing(
    sim: SimulatorServer, account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "ordinary", provocations._broken_figures)

    printed, ended = ran(account)

    assert ended == 1
    assert "The broker's figures can't be used" in printed
    assert not SelfTest.objects.exists()


def _never(account: BrokerAccount) -> None:
    assert selftest.last_selftest(account) is None


def _passed(account: BrokerAccount) -> None:
    selftest.run(account, actor="test")


def _long_ago(account: BrokerAccount) -> None:
    selftest.run(account, actor="test")
    SelfTest.objects.update(ran_at=F("ran_at") - timedelta(days=8))


def _failed(account: BrokerAccount) -> None:
    SelfTest.objects.create(
        account=account,
        actor="test",
        passed=False,
        results=[{"control": "wash trade", "ok": False}],
    )


@pytest.mark.parametrize(
    ("make", "status", "words", "advice"),
    [
        (_never, "warning", "it never ran", "Run manage.py risk_selftest --account main."),
        (_passed, "ok", "controls fired", ""),
        (_long_ago, "warning", "8 days ago", "Run manage.py risk_selftest --account main."),
        (_failed, "fail", "did not fire: wash trade", "Halt trading"),
    ],
)
def test_doctor_says_when_it_ran_and_what_to_do(
    sim: SimulatorServer,
    account: BrokerAccount,
    make: Callable[[BrokerAccount], None],
    status: str,
    words: str,
    advice: str,
) -> None:
    make(account)

    (finding,) = [each for each in examine() if each.check == "main: risk self-test"]

    assert finding.status == status
    assert words in finding.message
    assert advice in finding.advice


def test_a_trading_state_of_long_standing_is_untouched_to_the_letter(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    trading.set_state(account.pk, "reducing", reason="lunch", actor="anna")
    before = TradingControl.objects.values().get()

    selftest.run(account, actor="test")

    assert TradingControl.objects.values().get() == before
