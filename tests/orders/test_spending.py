"""Sixty-four callers in four processes spend the same money, shares and limits.

What is left at each decision is added up anew, from the orders alone and in the order in which they
were decided: that is what the answers are held against.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from orders import jobs
from orders.models import Order, OrderHistory
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.verify import violations
from positions.models import Position
from risk.limits import change
from tests.conftest import hold, quote, sent
from tests.listening import Listening, listeners
from tests.orders.spenders import Answer, Company, Spender
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("alike_allowed"),
    pytest.mark.timeout(300),
]

PROCESSES, SPENDERS = 4, 64
_ZERO = Decimal(0)
_MOST_CAUTION = 0.05


@pytest.fixture(scope="module")
def company(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Company]:
    with django_db_blocker.unblock():
        started = Company(tmp_path_factory.mktemp("spenders"), PROCESSES)
    yield started
    started.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """An order as it was decided on."""

    symbol: str
    qty: Decimal
    cost: Decimal
    codes: frozenset[str]  # of what denied it

    @property
    def passed(self) -> bool:
        return not self.codes


EACH = [pytest.param(3), pytest.param(20, marks=pytest.mark.long)]


@pytest.mark.parametrize("each", EACH)
def test_callers_who_spend_the_same_money_spend_all_of_it_and_no_more(
    sim: SimulatorServer, account: BrokerAccount, company: Company, each: int
) -> None:
    quote(sim, "KO", "70.00")
    # Enough for about six of ten orders; half of them fill at once, half rest below the market.
    sim.post("/sim/account", {"cash": str(SPENDERS * each * 100)})
    start = _buying_power(sim)

    def body(spender: int, number: int) -> dict[str, str]:
        price = "70.00" if (spender + number) % 2 else "60.00"
        return {"symbol": "KO", "side": "buy", "qty": str(5 + number % 3 * 5), "limit_price": price}

    told = _play(sim, account, company, each, body)

    spent = _cost([order for order in told if order.passed])
    assert spent <= start
    assert _buying_power(sim) == start - spent
    assert _codes(told) == {"insufficient_buying_power"}
    for order in Order.objects.exclude(status="denied"):
        (money,) = [it for it in order.verdict if it["code"] == "insufficient_buying_power"]
        assert Decimal(money["inputs"]["reserved"]) <= Decimal(money["inputs"]["buying_power"])

    def fits(before: list[Decided], order: Decided) -> bool:
        return (start - _cost(before)) * Decimal("0.99") >= order.cost

    assert _caution("money", told, fits) <= _MOST_CAUTION


@pytest.mark.parametrize("each", EACH)
def test_callers_who_sell_the_same_shares_sell_all_of_them_and_no_more(
    sim: SimulatorServer, account: BrokerAccount, company: Company, each: int
) -> None:
    held = Decimal(SPENDERS * each)
    quote(sim, "TSLA", "250.00")
    hold(sim, "TSLA", str(held), "240.00")

    def body(spender: int, number: int) -> dict[str, str]:
        price = "250.00" if (spender + number) % 2 else "300.00"
        return {"symbol": "TSLA", "side": "sell", "qty": str(1 + number % 3), "limit_price": price}

    told = _play(sim, account, company, each, body)

    sold = sum((order.qty for order in told if order.passed), _ZERO)
    assert sold <= held
    assert _codes(told) == {"insufficient_quantity"}

    def fits(before: list[Decided], order: Decided) -> bool:
        return held - sum(each.qty for each in before) >= order.qty

    assert _caution("shares", told, fits) <= _MOST_CAUTION


# Of an equity of a million dollars: per cent, and symbols.
_LIMITS = {
    "max_position_pct": 4,
    "max_sector_pct": 6,
    "max_exposure_pct": 18,
    "max_positions": 12,
}
_PER_CENT = Decimal(10_000)
# Whoever buys these meets, in this order, the limit of position, sector, exposure and count first.
_GROUPS = (
    ("KO",),
    ("XOM", "CVX", "OKE"),
    ("HD", "CAT", "NEE"),
    ("PFE", "T", "BAC", "DIS", "INTC", "PG", "PLD", "LIN", "GS", "META", "MRK", "V"),
)


@pytest.mark.parametrize("each", EACH)
def test_callers_at_once_never_exceed_the_limits_of_position_sector_exposure_and_count(
    sim: SimulatorServer, account: BrokerAccount, company: Company, each: int
) -> None:
    change(account=account, strategy=None, values=_LIMITS, reason="What is tested.", actor="test")
    for symbol in (symbol for group in _GROUPS for symbol in group):
        quote(sim, symbol, "100.00")
    for symbol in (symbol for group in _GROUPS[:3] for symbol in group):
        hold(sim, symbol, "1", "100.00")  # else the small ones might take all places
    held = _at_broker(sim)
    sim.post("/sim/account", {"cash": str(1_000_000 - _cost(held))})

    def body(spender: int, number: int) -> dict[str, str]:
        group = spender % 4
        symbol = _GROUPS[group][(spender // 4 + number) % len(_GROUPS[group])]
        shares = 5 if group == 3 else 150 // each
        price = "100.00" if number % 2 else "99.00"
        return {"symbol": symbol, "side": "buy", "qty": str(shares), "limit_price": price}

    told = _play(sim, account, company, each, body)

    assert _exceeded([*held, *(order for order in told if order.passed)]) == set()
    assert _exceeded(_at_broker(sim)) == set()
    assert _codes(told) == set(_LIMITS)

    def fits(before: list[Decided], order: Decided) -> bool:
        return not _exceeded([*held, *before, order])

    assert _caution("limits", told, fits) <= _MOST_CAUTION


def _exceeded(orders: list[Decided]) -> set[str]:
    """The limits that these together would exceed."""
    worth: dict[str, Decimal] = defaultdict(Decimal)
    for order in orders:
        worth[order.symbol] += order.cost
    energy = sum((worth[symbol] for symbol in _GROUPS[1] if symbol in worth), _ZERO)
    reached = {
        "max_position_pct": max(worth.values(), default=_ZERO) / _PER_CENT,
        "max_sector_pct": energy / _PER_CENT,
        "max_exposure_pct": sum(worth.values(), _ZERO) / _PER_CENT,
        "max_positions": Decimal(len(worth)),
    }
    return {code for code, value in reached.items() if value > _LIMITS[code]}


def _at_broker(sim: SimulatorServer) -> list[Decided]:
    """What the broker holds, and what is open there, as if it were orders that passed."""
    state = sim.get("/sim/state")
    held = [(each["symbol"], each["qty"], "100.00") for each in state["positions"]]
    open_orders = [
        (each["symbol"], Decimal(each["qty"]) - Decimal(each["filled_qty"]), each["limit_price"])
        for each in state["orders"]
        if each["status"] in ("new", "partially_filled", "pending_new", "accepted")
    ]
    return [
        Decided(symbol=symbol, qty=_ZERO, cost=Decimal(qty) * Decimal(price), codes=frozenset())
        for symbol, qty, price in [*held, *open_orders]
    ]


def _play(
    sim: SimulatorServer,
    account: BrokerAccount,
    company: Company,
    each: int,
    body: Callable[[int, int], dict[str, str]],
) -> list[Decided]:
    """Every spender sends so many orders, all at once; then what the broker took is proved to be
    what we believe. Returns the orders in the order of their decisions."""
    names = [f"s{number}" for number in range(PROCESSES)]
    tokens = [
        ApiToken.issue(Strategy.objects.create(account=account, name=name), SCOPES)[1]
        for name in names
    ]
    plan = [
        Spender(token=tokens[spender % PROCESSES], orders=[body(spender, n) for n in range(each)])
        for spender in range(SPENDERS)
    ]
    deadlocks, began = _deadlocks(), time.monotonic()
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        answers = company.play(plan, broker=sim.url)
        took = time.monotonic() - began
        until(lambda: _book_is_the_brokers(sim), seconds=30, every=0.5)
    _print_figures(answers, took)
    assert {answer.status for answer in answers} <= {201, 422}
    assert {answer.code for answer in answers} <= {"", "order_denied"}
    assert [post["status"] for post in sent(sim) if post["status"] != 200] == []
    assert _deadlocks() == deadlocks
    assert list(violations()) == []
    # Numbered under the account's lock: the order in which they were decided.
    first = OrderHistory.objects.filter(seq=1).order_by("pk").select_related("order")
    return [_decided(step.order) for step in first]


def _decided(order: Order) -> Decided:
    assert order.limit_price is not None
    return Decided(
        symbol=order.symbol,
        qty=order.qty,
        cost=order.qty * order.limit_price,
        codes=frozenset(violation["code"] for violation in order.violations),
    )


Fits = Callable[[list[Decided], Decided], bool]


def _caution(what: str, told: list[Decided], fits: Fits) -> float:
    """The part of the affordable orders that was denied. Affordable are those that exact accounting
    would have passed, in the same order and beside what it had passed before: so the same dollar
    makes one order affordable, not each of the forty that were denied while it lay there. How many
    those were is printed, too."""
    affordable: list[Decided] = []
    passed: list[Decided] = []
    denied = at_that_moment = 0
    for order in told:
        if fits(affordable, order):
            affordable.append(order)
            denied += not order.passed
        if order.passed:
            passed.append(order)
        else:
            at_that_moment += fits(passed, order)
    share = denied / len(affordable)
    print(  # noqa: T201 the figures
        f"{what}: {len(told)} orders, {len(passed)} passed, {len(told) - len(passed)} denied; "
        f"affordable {len(affordable)}, of them denied {denied} ({share:.1%}); denials while what "
        f"was left would have covered them {at_that_moment}"
    )
    return share


def _print_figures(answers: list[Answer], took: float) -> None:
    seconds = sorted(answer.seconds for answer in answers)
    print(  # noqa: T201 the figures
        f"\n{PROCESSES} processes, {SPENDERS} callers: {len(answers)} attempts in {took:.1f} s, "
        f"answers {dict(Counter(answer.status for answer in answers))}, P50 "
        f"{seconds[len(seconds) // 2]:.2f} s, longest {seconds[-1]:.2f} s"
    )


def _codes(told: list[Decided]) -> set[str]:
    return {code for order in told for code in order.codes}


def _cost(orders: list[Decided]) -> Decimal:
    return sum((order.cost for order in orders), _ZERO)


def _buying_power(sim: SimulatorServer) -> Decimal:
    return Decimal(sim.get("/sim/state")["account"]["buying_power"])


def _book_is_the_brokers(sim: SimulatorServer) -> bool:
    """Every order has the broker's status, every position its shares."""
    jobs.poll()
    state = sim.get("/sim/state")
    theirs = {order["client_order_id"]: order["status"] for order in state["orders"]}
    rows = Order.objects.exclude(status__in=("denied", "rejected"))
    shares = {position["symbol"]: Decimal(position["qty"]) for position in state["positions"]}
    return dict(rows.values_list("client_order_id", "status")) == theirs and shares == dict(
        Position.objects.exclude(qty=0).values_list("symbol", "qty")
    )


def _deadlocks() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return cursor.fetchone()
