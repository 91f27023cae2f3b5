"""2025-12-17: 6,123 refusals for insufficient buying power, 68 `pending_new` statuses that the code
did not know, 48 sizing failures from stale buying power; 21 positions held, no buying power left,
book and broker apart.

Here as many attempts, of several strategies at once, on an account whose money their fills use up;
and a book that hands at the broker and a wrong buying power have set apart, brought together again.
"""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from orders import jobs
from orders.models import Order, OrderHistory
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import Position
from reconciliation.corrections import decide
from reconciliation.models import Break, Correction
from reconciliation.run import reconcile
from tests.conftest import Api, hold, quote, sent
from tests.listening import Listening, listeners
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)

# Symbol and price of the 21 that were held, $10,000 of each.
HELD = {
    symbol: Decimal(price)
    for symbol, price in {
        "AAPL": 250,
        "AMD": 160,
        "BA": 200,
        "BAC": 50,
        "CAT": 400,
        "CRM": 250,
        "CVX": 160,
        "DIS": 100,
        "GE": 250,
        "HD": 400,
        "JNJ": 200,
        "JPM": 250,
        "KO": 80,
        "MRK": 80,
        "NEE": 80,
        "OKE": 80,
        "PEP": 125,
        "PG": 160,
        "TSLA": 250,
        "V": 400,
        "XOM": 100,
    }.items()
}
# What a person changed for the day: the rate, and all that would decide before money does.
WIDE = (
    *("max_orders_per_minute=100000", "max_positions=1000", "duplicate_guard=no"),
    *("max_position_pct=600", "max_sector_pct=600", "max_exposure_pct=600"),
    "breaker_min_buying_power=0",
)
STRATEGIES, CALLERS = 3, 8
ATTEMPTS, PENDING_NEW, SIZING = 6_123, 68, 48


@pytest.mark.parametrize(
    "attempts",
    [
        pytest.param(400, marks=pytest.mark.timeout(240)),
        pytest.param(ATTEMPTS, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_attempt_reaches_the_broker_that_it_would_refuse_for_money_or_quantity(
    sim: SimulatorServer, account: BrokerAccount, attempts: int
) -> None:
    _hold_21(sim)
    call_command("limits", *WIDE, reason="The day is played again.", stdout=StringIO())
    callers = [_api(account, f"s{number}") for number in range(STRATEGIES)]
    before = _account(sim)["buying_power"]

    def attempt(number: int) -> tuple[int, dict[str, Any]]:
        body = _sell() if number % (attempts // SIZING) == 0 else _buy(number)
        try:
            answer = callers[number % STRATEGIES].post("/orders", body)
        finally:
            connection.close()
        return answer.status_code, answer.json()

    with Listening(account):
        until(lambda: listeners(sim) == 1)
        began = time.monotonic()
        answers: list[tuple[int, dict[str, Any]]] = []
        for part in range(0, attempts, 500):
            with ThreadPoolExecutor(CALLERS) as pool:
                answers += pool.map(attempt, range(part, min(part + 500, attempts)))
            reconcile(account)  # as the clock does: old books bar orders that add
        took = time.monotonic() - began
        until(lambda: _book_is_the_brokers(sim), seconds=60, every=0.5)

    after = _account(sim)["buying_power"]
    denials = [told["violations"] for status, told in answers if status == 422]
    codes = Counter(violation["code"] for denial in denials for violation in denial)
    refused = [post for post in sent(sim) if post["status"] != 200]
    told_pending = OrderHistory.objects.filter(to_status="pending_new").count()
    unknown = Alert.objects.filter(code="unknown_status").count()
    print(  # noqa: T201 the figures of the day
        f"\n2025-12-17: {attempts} attempts in {took:.1f} s, {len(sent(sim))} sent, refused by the "
        f"broker {len(refused)}, denied here {dict(codes)}, statuses pending_new {told_pending}, "
        f"unknown {unknown}; buying power {before} before, {after} after"
    )
    assert {status for status, _ in answers} == {201, 422}
    assert refused == []
    assert codes.keys() == {"insufficient_buying_power", "insufficient_quantity"}
    for (violation,) in denials:
        assert Decimal(violation["actual"]) > Decimal(violation["limit"])
        assert violation["message"]
    assert unknown == 0
    assert told_pending >= PENDING_NEW
    assert Decimal(after) < min(
        Decimal(_buy(n)["qty"]) * HELD[_buy(n)["symbol"]] for n in range(20)
    )
    assert list(violations()) == []
    report = reconcile(account)
    assert (report.zombies, report.orphans, report.quantity_drifts) == ([], [], [])


def test_with_limits_as_they_are_the_22nd_position_and_all_that_adds_is_denied_here(
    sim: SimulatorServer, account: BrokerAccount
) -> None:
    _hold_21(sim)
    api = _api(account, "rsi")

    another = api.post("/orders", {**_buy(1), "symbol": "INTC", "limit_price": "20.00"})
    more = api.post("/orders", _buy(1))
    less = api.post("/orders", _sell())

    said = [
        {each["code"]: (each["limit"], each["actual"]) for each in answer.json()["violations"]}
        for answer in (another, more)
    ]
    assert said[0]["max_positions"] == ("20", "22")
    for each in said:
        assert each["max_exposure_pct"][0] == "150"
        assert Decimal(each["max_exposure_pct"][1]) > 311
    assert said[1]["max_position_pct"][0] == "5"
    assert less.status_code == 201
    assert [post["body"]["side"] for post in sent(sim)] == ["sell"]


def test_what_hands_and_a_wrong_buying_power_set_apart_is_found_explained_and_brought_together(
    sim: SimulatorServer, account: BrokerAccount, settings: LazySettings
) -> None:
    """Book and broker: 21 positions, five of them changed in the broker's own app, and a buying
    power of nothing that follows from nothing."""
    settings.SECOND_LOOK_SECONDS = 0
    approver = User.objects.create_superuser("approver")
    _hold_21(sim)
    quote(sim, "INTC", "20")
    reconcile(account)
    sim.post("/sim/close", {"symbol": "BA"})
    for symbol, side, qty in (
        *(("INTC", "buy", "7"), ("KO", "sell", "25"), ("AAPL", "buy", "5"), ("AAPL", "buy", "3")),
        *(("DIS", "sell", "100"), ("DIS", "sell", "40")),
    ):
        sim.post("/sim/trade", {"symbol": symbol, "side": side, "qty": qty})
    sim.post("/sim/account", {"buying_power": "0"})

    for _ in range(2):
        report = reconcile(account)

    assert report.differences_count == 6
    found = {row.subject: row for row in Break.objects.filter(ended_at=None)}
    causes = {
        row.symbol: (row.kind, row.difference, row.explanation and row.explanation["code"])
        for row in found.values()
        if row.symbol
    }
    assert causes == {
        "BA": ("zombie", -50, "external_trades"),
        "INTC": ("orphan", 7, "external_trades"),
        "KO": ("quantity", -25, "external_trades"),
        "AAPL": ("quantity", 8, "external_trades"),
        "DIS": ("side", -140, "external_trades"),
    }
    power = found["account/buying_power"]
    assert (len(found), power.broker, power.severity) == (6, 0, "critical")
    assert power.local > 50_000
    told = dict(Alert.objects.filter(ended_at=None).values_list("subject", "message"))
    for subject in ("BA", "INTC", "KO", "AAPL", "DIS"):
        assert "Traded at the broker past Ordinis" in told[subject]
    assert "the broker says $0" in told["account/buying_power"]
    assert Order.objects.count() == 0

    for correction in Correction.objects.filter(status="proposed"):
        decide(correction.pk, "approve", user=approver, comment="Traded in the broker's own app.")
    sim.post("/sim/account", {"buying_power": None})
    report = reconcile(account)

    assert (report.complete, report.differences) == (True, [])
    ended = Counter(Break.objects.values_list("status", flat=True))
    assert ended == {"resolved": 5, "healed": 1}
    assert not Alert.objects.filter(code__startswith="break_", ended_at=None).exists()
    state = sim.get("/sim/state")
    shares = {each["symbol"]: Decimal(each["qty"]) for each in state["positions"]}
    assert dict(Position.objects.exclude(qty=0).values_list("symbol", "qty")) == shares
    assert cash_of(account.pk) == Decimal(state["account"]["cash"])
    assert Position.objects.get(symbol="BA").closed_reason == "closed_externally"
    assert list(violations()) == []


def _hold_21(sim: SimulatorServer) -> None:
    """Two thirds of it on credit: of $67,500 of equity $60,000 of buying power are left."""
    for symbol, price in HELD.items():
        quote(sim, symbol, str(price))
        hold(sim, symbol, str(10_000 / price), str(price))
    sim.post("/sim/account", {"cash": "-142500"})


def _buy(number: int) -> dict[str, str]:
    """About $400 of anything but KO."""
    symbol = [each for each in HELD if each != "KO"][number % (len(HELD) - 1)]
    shares = (400 / HELD[symbol]).to_integral_value()
    return {"symbol": symbol, "side": "buy", "qty": str(shares), "limit_price": str(HELD[symbol])}


def _sell() -> dict[str, str]:
    """Sixty per cent of the KO that was held."""
    return {"symbol": "KO", "side": "sell", "qty": "75", "limit_price": "80.00"}


def _api(account: BrokerAccount, name: str) -> Api:
    strategy = Strategy.objects.create(account=account, name=name)
    return Api(ApiToken.issue(strategy, SCOPES)[1])


def _account(sim: SimulatorServer) -> Any:
    return sim.get("/sim/state")["account"]


def _book_is_the_brokers(sim: SimulatorServer) -> bool:
    """Every order has the broker's status, every position its shares."""
    jobs.poll()
    state = sim.get("/sim/state")
    theirs = {order["client_order_id"]: order["status"] for order in state["orders"]}
    ours = Order.objects.exclude(status__in=("denied", "rejected")).values_list(
        "client_order_id", "status"
    )
    shares = {each["symbol"]: Decimal(each["qty"]) for each in state["positions"]}
    held = Position.objects.exclude(qty=0).values_list("symbol", "qty")
    return dict(ours) == theirs and dict(held) == shares
