"""What the checks add to an order beside the broker's answers (SPEC section 6: under 10 ms), with
few and many positions and open orders."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from tests.bench.measure import beside, timed

ROUNDS, WARM_UP = 150, 15
BOOKS = ((20, 0), (20, 50), (20, 500), (500, 0), (500, 50), (500, 500))
SYMBOLS = [f"BENCH{number}" for number in range(500)]
_TEN = Decimal(10)


class Answers:
    """How long the broker's answers took, the ones asked for side by side counted once. For one
    caller at a time."""

    def __init__(self) -> None:
        from ordinis.broker import transport

        self._guard = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        inner = transport._Adapter.send

        def send(adapter: Any, request: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(adapter, request, **kwargs)
            finally:
                with self._guard:
                    self._spans.append((began, time.perf_counter()))

        transport._Adapter.send = send  # type: ignore[assignment, method-assign]

    def own_time(self, work: Callable[[], object]) -> float:
        """Seconds that it takes beside them."""
        self._spans.clear()
        seconds = timed(work)
        began = min((span[0] for span in self._spans), default=0.0)
        return seconds - (max((span[1] for span in self._spans), default=0.0) - began)


def measure(sim: Any) -> None:
    """From the question to the verdict: with figures asked for anew, which is how most orders of a
    desk in full swing are judged and all denials, and with figures at hand. Limits in force and
    rates are read, as for an order."""
    from ordinis.accounts.models import BrokerAccount, Strategy
    from risk import figures

    strategy = Strategy.objects.select_related("account").get(name="bench")
    account: BrokerAccount = strategy.account
    answers = Answers()
    sim.post("/sim/symbol", [{"symbol": symbol, "price": "1"} for symbol in SYMBOLS])
    for positions, open_orders in BOOKS:
        _hold(sim, positions)
        made = _store(strategy, open_orders)
        anew, at_hand, least = [], [], []
        for _ in range(ROUNDS + WARM_UP):
            anew.append(answers.own_time(lambda: judged(strategy, fresh=True)))
            figures.ask(account)
            at_hand.append(answers.own_time(lambda: judged(strategy, fresh=False)))
            least.append(timed(lambda: _floor(account)))
        what = f"checks, {positions} positions, {open_orders} open orders"
        floor = "one transaction that locks and reads the account"
        beside(f"{what}, asked anew", anew[WARM_UP:], floor, least[WARM_UP:])
        beside(f"{what}, at hand", at_hand[WARM_UP:], floor, least[WARM_UP:])
        _forget(made)
    _hold(sim, 0)


def judged(strategy: Any, *, fresh: bool) -> None:
    """A buy of one share, judged as it is on its way to the broker, but not stored."""
    from orders import rates
    from orders.judgement import Question, judge
    from risk.checks import Intent
    from risk.limits import in_force

    account = strategy.account
    intent = Intent(
        symbol="KO",
        side="buy",
        qty=Decimal(1),
        worst_price=_TEN,
        limit_price=_TEN,
        reference_price=_TEN,
    )
    question = Question(
        account=account,
        intent=intent,
        limits=in_force(account.pk, strategy.pk),
        order_id=None,
        strategy_id=strategy.pk,
        rates=lambda: rates.of(strategy),
    )
    verdict = judge(question, lambda _locked, found: found, fresh=fresh)
    assert not verdict.violations, verdict.violations


def _floor(account: Any) -> None:
    from django.db import transaction

    from ordinis.accounts.models import BrokerAccount

    with transaction.atomic():
        BrokerAccount.lock(account.pk)


def _hold(sim: Any, count: int) -> None:
    """So many positions, each of a share at a dollar, and no others."""
    held = [each["symbol"] for each in sim.trading("GET", "/v2/positions").json()]
    if held:
        sim.post("/sim/position", [{"symbol": symbol, "qty": "0"} for symbol in held])
    if count:
        sim.post(
            "/sim/position",
            [{"symbol": symbol, "qty": "1", "average_price": "1"} for symbol in SYMBOLS[:count]],
        )


def _store(strategy: Any, count: int) -> list[UUID]:
    """Open orders that the broker confirmed long ago."""
    from orders.models import Order
    from risk.figures import database_now

    long_ago = database_now() - timedelta(hours=1)
    made = [
        Order(
            id=(pk := uuid4()),
            chain=pk,
            account=strategy.account,
            strategy=strategy,
            client_order_id=str(pk),
            broker_order_id=str(pk),
            symbol=SYMBOLS[number % 40],
            side="buy",
            qty=Decimal(1),
            type="limit",
            time_in_force="day",
            limit_price=Decimal(1),
            worst_price=Decimal(1),
            status="new",
            acknowledged_at=long_ago,
            created_at=long_ago,
        )
        for number in range(count)
    ]
    Order.objects.bulk_create(made)
    return [order.pk for order in made]


def _forget(made: list[UUID]) -> None:
    from orders.models import Order

    Order.objects.filter(pk__in=made).delete()
