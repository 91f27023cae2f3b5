"""The kill switch: a halt stands whatever fails after it, and only what is proved is confirmed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from orders import cancel_all, jobs, sending, wake
from orders.halting import AlreadyHalted, Moved, halt, loosen, reduce, suspend, touched
from orders.models import Order, OrderHistory
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from risk import trading
from risk.models import TradingChange, TradingControl
from tests.conftest import Api, hold, quote, sent
from tests.orders.standing import at_broker, polled, rest
from tests.other_process import start
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _books_are_right(sim: SimulatorServer, account: BrokerAccount) -> Iterator[None]:
    yield
    until(wake.is_idle)
    assert list(violations()) == []


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not confirmed within half a second is called pending."""
    monkeypatch.setattr(cancel_all, "_LONGEST", 0.5)


def _state(account: BrokerAccount) -> str:
    return trading.current(account.pk).state


def _suspended(sim: SimulatorServer) -> bool:
    return bool(sim.trading("GET", "/v2/account/configurations").json()["suspend_trade"])


# --- the halt itself ---------------------------------------------------------------------------


def test_a_halt_cancels_all_and_says_how_each_ended(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    ours = rest(sim, api, order(client_order_id="ours"))
    body = {"symbol": "KO", "qty": "5", "side": "buy", "type": "limit", "time_in_force": "day"}
    theirs = sim.trading("POST", "/v2/orders", json={**body, "limit_price": "1"}).json()

    done = halt(account, reason="smoke in the room", actor="ann")

    told = {each.broker_order_id: each.outcome for each in done.outcomes}
    assert told == {ours.broker_order_id: "canceled", theirs["id"]: "canceled"}
    assert (done.confirmed, done.unconfirmed) == (True, [])
    assert (done.state.state, done.suspended_at_broker) == ("halted", None)
    control = TradingControl.objects.get()
    assert (control.state, control.actor, control.reason) == ("halted", "ann", "smoke in the room")
    asked = OrderHistory.objects.get(order=ours, from_status="new", to_status="new")
    assert asked.reason == "Trading is halted: smoke in the room"
    assert not _suspended(sim)


def test_new_orders_are_denied_after_a_halt_and_cancels_pass(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    standing = rest(sim, api, order(client_order_id="stands"))
    halt(account, reason="stop", actor="ann", cancel_open_orders=False)
    before = len(sent(sim))

    answer = api.post("/orders", order(reference_price="240"))

    assert answer.status_code == 422
    assert "trading_halted" in [each["code"] for each in answer.json()["violations"]]
    assert len(sent(sim)) == before
    standing.refresh_from_db()
    assert (standing.status, standing.cancel_requested_at) == ("new", None)
    assert api.post(f"/orders/{standing.pk}/cancel").status_code == 200
    polled(standing.pk, "canceled")


def test_an_order_that_sells_what_is_held_is_denied_too(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    hold(sim, "TSLA", "50", "240")
    halt(account, reason="stop", actor="ann")

    answer = api.post("/orders", order(side="sell", reduce_only=True))

    assert answer.status_code == 422
    assert "trading_halted" in [each["code"] for each in answer.json()["violations"]]
    assert sent(sim) == []


def test_an_order_that_was_judged_before_the_halt_is_not_sent_after_it(
    sim: SimulatorServer,
    api: Api,
    account: BrokerAccount,
    order: MakeOrder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def halted_meanwhile(point: str) -> None:
        if point == "send.committed":
            halt(account, reason="stop", actor="ann", cancel_open_orders=False)

    monkeypatch.setattr(sending, "failpoint", halted_meanwhile)

    answer = api.post("/orders", order(client_order_id="late"))

    assert (answer.status_code, answer.json()["code"]) == (422, "order_denied")
    assert [each["code"] for each in answer.json()["violations"]] == ["trading_halted"]
    assert Order.objects.get().status == "denied"
    assert sent(sim) == []


def test_an_order_on_its_way_to_the_broker_is_cancelled_with_the_others(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    fault = {"kind": "delay_after", "seconds": 0.5, "method": "POST", "path": "/v2/orders"}
    sim.post("/sim/faults", [fault])

    def post() -> Any:
        try:
            return api.post("/orders", order(client_order_id="flies"))
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(post)
        until(lambda: len(sent(sim)) == 1)
        done = halt(account, reason="stop", actor="ann")
        sending.result()

    assert [
        (each.outcome, each.order and each.order.client_order_id) for each in done.outcomes
    ] == [("canceled", "flies")]
    assert done.confirmed
    assert at_broker(sim, "flies")[0]["status"] == "canceled"


def test_the_halt_stands_and_the_cancels_are_kept_when_the_broker_is_down(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    open_order = rest(sim, api, order(client_order_id="works"))
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/.*", "count": None}])

    done = halt(account, reason="stop", actor="ann", suspend_at_broker=True)

    assert _state(account) == "halted"
    assert not done.confirmed
    assert [(each.outcome, each.broker_order_id) for each in done.outcomes] == [
        ("pending", open_order.broker_order_id)
    ]
    assert done.outcomes[0].detail.endswith("It is asked for until it has ended.")
    assert len(done.unconfirmed) == 2
    assert "The broker could not be asked to cancel" in done.unconfirmed[0]
    assert "not confirmed that the broker bars new orders" in done.unconfirmed[1]
    assert done.suspended_at_broker is None
    open_order.refresh_from_db()
    assert open_order.cancel_requested_at is not None

    sim.delete("/sim/faults")

    def pursued() -> bool:
        jobs.pursue_cancels()
        jobs.poll()
        return Order.objects.get(pk=open_order.pk).status == "canceled"

    until(pursued)
    assert _state(account) == "halted"


def test_an_error_of_our_own_while_cancelling_undoes_no_halt_and_holds_up_no_bar(
    sim: SimulatorServer,
    account: BrokerAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancel_all, "_LONGEST", "long")  # breaks off in the middle

    done = halt(account, reason="stop", actor="ann", suspend_at_broker=True)

    assert _state(account) == "halted"
    assert "an error of Ordinis itself" in done.unconfirmed[0]
    assert done.suspended_at_broker is True
    assert _suspended(sim)


def test_what_is_not_confirmed_in_time_is_said(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, short: None
) -> None:
    rest(sim, api, order(client_order_id="slow"))
    sim.post("/sim/options", {"cancel_delay": 1000})

    done = halt(account, reason="stop", actor="ann")

    assert not done.confirmed
    assert done.unconfirmed[0].startswith("1 of 1 orders are not confirmed cancelled")
    assert [each.outcome for each in done.outcomes] == ["pending"]


def test_two_halts_at_once_are_both_confirmed_and_both_in_the_history(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "260")
    for number in range(5):
        body = order(client_order_id=f"rests-{number}", qty="1", reference_price=f"{200 + number}")
        assert api.post("/orders", body).status_code == 201

    def once(actor: str) -> Any:
        try:
            return halt(account, reason=f"{actor} saw it", actor=actor)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(once, ("ann", "ben")))

    assert [done.confirmed for done in both] == [True, True]
    assert set(Order.objects.values_list("status", flat=True)) == {"canceled"}
    assert TradingChange.objects.filter(kind="person").count() == 2
    assert BrokerAccount.objects.get().cancelling_runs == []


def test_anothers_halt_is_one_more_and_a_resume_must_have_seen_it(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    halt(account, reason="first", actor="ann")
    seen = TradingControl.objects.get().set_at

    again = halt(account, reason="second", actor="ben")

    assert again.confirmed
    control = TradingControl.objects.get()
    assert (control.actor, control.reason) == ("ben", "second")
    assert list(TradingChange.objects.values_list("actor", flat=True)) == ["ben", "ann"]
    with pytest.raises(Moved):
        loosen(account, "active", seen=seen, reason="over", actor="ann")
    assert _state(account) == "halted"


def test_the_same_halt_again_changes_nothing(sim: SimulatorServer, account: BrokerAccount) -> None:
    halt(account, reason="first", actor="ann")
    seen = TradingControl.objects.get().set_at

    halt(account, reason="first", actor="ann")

    assert TradingControl.objects.get().set_at == seen
    assert TradingChange.objects.count() == 1


def test_a_halt_without_a_reason_or_an_actor_halts_nothing(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    for reason, actor in ((" ", "ann"), ("stop", "")):
        with pytest.raises(ValueError, match="Say why"):
            halt(account, reason=reason, actor=actor)

    assert _state(account) == "active"
    assert not TradingChange.objects.exists()


def test_a_process_that_starts_later_reads_the_halt(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    halt(account, reason="stop", actor="ann")
    code = f"from risk import trading; print(trading.current({account.pk}).state)"

    reader = start("django", "shell", "--verbosity", "0", "-c", code, broker=sim.url)

    output, _ = reader.communicate(timeout=60)
    assert (reader.returncode, output.split()[-1]) == (0, "halted")


def test_what_a_halt_touched_is_listed_with_what_is_open_besides(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    parent = rest(sim, api, order(client_order_id="parent", take_profit={"limit_price": "300"}))
    before = rest(sim, api, order(client_order_id="before", reference_price="240"))
    api.post(f"/orders/{before.pk}/cancel")
    polled(before.pk, "canceled")

    done = halt(account, reason="stop", actor="ann")

    child = Order.objects.get(parent=parent)
    assert {each.pk for each in touched(account, done.began)} == {parent.pk, child.pk}
    assert not [each for each in touched(account, done.began) if each.is_open]


def test_an_order_whose_cancel_was_asked_for_before_the_halt_is_listed_while_it_is_open(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, short: None
) -> None:
    slow = rest(sim, api, order(client_order_id="slow"))
    sim.post("/sim/options", {"cancel_delay": 1000})
    assert api.post(f"/orders/{slow.pk}/cancel").status_code == 200

    done = halt(account, reason="stop", actor="ann")

    assert [each.pk for each in touched(account, done.began)] == [slow.pk]


def test_an_order_that_the_broker_refuses_to_cancel_is_said_to_be_open(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder, short: None
) -> None:
    old = rest(sim, api, order(client_order_id="old"))
    sim.post("/sim/options", {"replace_delay": 1000})
    body = {"qty": "60", "client_order_id": "app"}
    sim.trading("PATCH", f"/v2/orders/{old.broker_order_id}", json=body)

    done = halt(account, reason="stop", actor="ann")

    assert {each.outcome for each in done.outcomes} == {"failed"}
    (said,) = done.unconfirmed
    assert said.startswith("The broker refuses to cancel 2 of 2 orders (order pending replace)")


# --- at the broker -----------------------------------------------------------------------------


def test_new_orders_are_barred_and_allowed_at_the_broker_and_both_are_in_the_history(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    barred = suspend(account, on=True, reason="keys leaked", actor="ann")
    there = _suspended(sim)
    allowed = suspend(account, on=False, reason="keys changed", actor="ben")

    assert (barred.suspended, barred.problem, there) == (True, "", True)
    assert (allowed.suspended, allowed.problem, _suspended(sim)) == (False, "", False)
    rows = TradingChange.objects.filter(kind="suspend").order_by("pk")
    assert [(row.to_state, row.actor) for row in rows] == [
        ("to be barred", "ann"),
        ("barred", "ann"),
        ("to be allowed", "ben"),
        ("allowed", "ben"),
    ]


def test_a_bar_whose_answer_is_lost_is_confirmed_by_reading_it_back(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    path = "/v2/account/configurations"
    sim.post("/sim/faults", [{"kind": "drop_after", "method": "PATCH", "path": path}])

    done = suspend(account, on=True, reason="stop", actor="ann")

    assert (done.suspended, done.problem) == (True, "")
    assert _suspended(sim)


def test_a_bar_that_the_broker_did_not_take_up_is_not_called_one(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    path = "/v2/account/configurations"
    sim.post("/sim/faults", [{"kind": "drop_before", "method": "PATCH", "path": path}])

    done = suspend(account, on=True, reason="stop", actor="ann")

    assert done.suspended is False
    assert "not confirmed" in done.problem
    newest = TradingChange.objects.filter(kind="suspend").first()
    assert newest is not None
    assert newest.to_state == "not confirmed"


def test_a_bar_of_an_account_at_another_broker_is_not_called_one(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    elsewhere = BrokerAccount.objects.create(name="other", broker="alpaca", mode="paper")

    done = suspend(elsewhere, on=True, reason="stop", actor="ann")

    assert done.suspended is None
    assert "This account trades at 'alpaca'" in done.problem
    assert not _suspended(sim)


# --- loosening ---------------------------------------------------------------------------------


def test_reducing_tightens_and_never_loosens_a_halt(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    assert reduce(account, reason="careful", actor="ann").state == "reducing"
    halt(account, reason="stop", actor="ann")

    with pytest.raises(AlreadyHalted, match="Nothing was changed"):
        reduce(account, reason="careful", actor="ben")

    assert _state(account) == "halted"


def test_a_resume_undoes_only_the_halt_that_was_seen(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    halt(account, reason="first", actor="ann")
    seen = TradingControl.objects.get().set_at
    loosen(account, "active", seen=seen, reason="all well", actor="ben")
    halt(account, reason="second", actor="ann")

    with pytest.raises(Moved):
        loosen(account, "active", seen=seen, reason="all well", actor="ben")

    assert _state(account) == "halted"
    assert TradingControl.objects.get().reason == "second"


# --- over HTTP ---------------------------------------------------------------------------------


def _halt(api: Api, **body: Any) -> Any:
    return api.post("/risk/halt", {"reason": "the strategy went mad", **body})


def test_the_api_halts_cancels_and_tells_each_outcome(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="ours"))

    answer = _halt(api)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["trading_state"], told["breaker"], told["until"]) == ("halted", "closed", None)
    assert (told["confirmed"], told["unconfirmed"]) == (True, [])
    assert told["suspended_at_broker"] is None
    assert [reason["code"] for reason in told["reasons"]] == ["set_by_person"]
    assert "strategy rsi set the account to halted" in told["reasons"][0]["message"]
    (result,) = told["results"]
    assert (result["outcome"], result["order"]["client_order_id"]) == ("canceled", "ours")
    assert _state(account) == "halted"
    assert OrderHistory.objects.filter(source="api", reason__contains="went mad").count() == 1


def test_the_api_leaves_orders_working_and_bars_at_the_broker_where_it_is_told_to(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    works = rest(sim, api, order(client_order_id="works"))

    told = _halt(api, cancel_open_orders=False, suspend_at_broker=True).json()

    assert (told["results"], told["suspended_at_broker"], told["confirmed"]) == ([], True, True)
    assert _suspended(sim)
    works.refresh_from_db()
    assert (works.status, works.cancel_requested_at) == ("new", None)


def test_the_api_answers_200_and_says_what_is_not_certain_when_the_broker_is_down(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="works"))
    sim.stop()

    answer = _halt(api)

    told = answer.json()
    sim.start()
    assert answer.status_code == 200
    assert (told["trading_state"], told["confirmed"]) == ("halted", False)
    assert [result["outcome"] for result in told["results"]] == ["pending"]
    assert "could not be asked to cancel" in told["unconfirmed"][0]
    assert _state(account) == "halted"


@pytest.mark.parametrize("scopes", [("read",), ("trade",), ("read", "trade")])
def test_a_token_without_operate_halts_nothing(
    sim: SimulatorServer, strategy: Strategy, account: BrokerAccount, scopes: tuple[str, ...]
) -> None:
    _, secret = ApiToken.issue(strategy, scopes)

    answer = _halt(Api(secret))

    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert _state(account) == "active"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "   "},
        {"reason": "stop", "cancel_open_orders": "no"},
        {"reason": "stop", "suspend_at_broker": 1},
        {"reason": "stop", "resume": True},
    ],
)
def test_a_body_that_is_not_understood_halts_nothing(
    sim: SimulatorServer, api: Api, account: BrokerAccount, body: dict[str, Any]
) -> None:
    assert api.post("/risk/halt", body).status_code == 422

    assert _state(account) == "active"


# --- on the command line -----------------------------------------------------------------------


def _command(*arguments: str) -> tuple[int, str]:
    """The exit code and what was printed."""
    out = StringIO()
    try:
        call_command("halt", "--reason", "fire drill", *arguments, stdout=out)
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    return 0, out.getvalue()


def test_the_command_says_what_it_will_do_and_what_is_confirmed(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="ours"))

    code, output = _command("--suspend-at-broker")

    assert code == 0
    assert output.splitlines() == [
        "main: halts trading, cancels 1 open orders and whatever else is open at the broker, bars "
        "new orders at the broker.",
        "main: confirmed, trading is halted.",
        "  ours: canceled, 0 filled",
        "main: 1 of 1 orders have ended.",
        "main: confirmed, the broker bars new orders.",
    ]
    assert _state(account) == "halted"
    assert TradingControl.objects.get().actor.startswith("command line (")


def test_the_command_ends_with_1_when_something_is_not_confirmed(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="works"))
    sim.stop()

    code, output = _command()

    sim.start()
    assert code == 1
    assert "main: confirmed, trading is halted." in output
    assert "main: 0 of 1 orders have ended." in output
    assert "main: NOT CONFIRMED. The broker could not be asked to cancel" in output
    assert _state(account) == "halted"


def test_the_command_leaves_orders_working_where_it_is_told_to(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    works = rest(sim, api, order(client_order_id="works"))

    code, output = _command("--no-cancel", "--account", "main")

    assert code == 0
    assert "main: halts trading, leaves 1 open orders working: they may still fill" in output
    works.refresh_from_db()
    assert (works.status, works.cancel_requested_at) == ("new", None)


def test_the_command_halts_every_account_before_it_cancels_in_any(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    rest(sim, api, order(client_order_id="ours"))
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")

    code, output = _command()

    assert code == 0
    assert "other: confirmed, trading is halted." in output
    assert (_state(account), _state(other)) == ("halted", "halted")
    asked = OrderHistory.objects.get(reason="Trading is halted: fire drill", to_status="new")
    assert TradingChange.objects.get(account=other).at < asked.received_at


def test_the_command_reduces_and_refuses_to_loosen_a_halt(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    code, output = _command("--reducing")
    assert (code, _state(account)) == (0, "reducing")
    assert "main: confirmed, trading is reducing." in output
    halt(account, reason="stop", actor="ann")

    code, output = _command("--reducing")

    assert (code, _state(account)) == (1, "halted")
    assert "main: NOT DONE." in output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--reason", " "),
        ("--reason", "stop", "--account", "nobody"),
        ("--reason", "stop", "--reducing", "--no-cancel"),
    ],
)
def test_a_command_that_is_not_understood_halts_nothing(
    sim: SimulatorServer, account: BrokerAccount, arguments: tuple[str, ...]
) -> None:
    with pytest.raises(CommandError):
        call_command("halt", *arguments)

    assert _state(account) == "active"


def test_a_bar_at_the_broker_denies_orders_here_too(
    sim: SimulatorServer, api: Api, account: BrokerAccount, order: MakeOrder
) -> None:
    suspend(account, on=True, reason="stop", actor="ann")

    answer = api.post("/orders", order())

    assert [each["code"] for each in answer.json()["violations"]] == ["account_suspended"]
    assert broker_for(account).configuration().suspend_trade
    assert sent(sim) == []
