"""What tighter limits would have denied of the orders that were sent (SPEC K9)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.hindsight import Hindsight, would_have_denied
from orders.models import Order
from ordinis.accounts.models import Strategy
from risk.limits import Limits

pytestmark = pytest.mark.django_db

Sent = Callable[..., Order]


def found(code: str, actual: object, limit: object = 100, **more: Any) -> dict[str, Any]:
    """One check of a verdict, as it is stored."""
    return {"code": code, "limit": str(limit), "actual": str(actual), "ok": True, **more}


@pytest.fixture
def sent(strategy: Strategy) -> Sent:
    """An order that was sent, a buy of 50 TSLA at 250 unless told otherwise."""

    def make(*verdict: dict[str, Any], **values: Any) -> Order:
        given: dict[str, Any] = {
            "account": strategy.account,
            "strategy": strategy,
            "client_order_id": f"{uuid4()}",
            "chain": uuid4(),
            "symbol": "TSLA",
            "side": "buy",
            "qty": Decimal(50),
            "type": "limit",
            "limit_price": Decimal(250),
            "status": "filled",
            "submitted_at": timezone.now(),
            "verdict": list(verdict),
        }
        return Order.objects.create(**{**given, **values})

    return make


def denied(strategy: Strategy, before: Limits | None = None, **after: Any) -> Hindsight:
    old = before or Limits()
    return would_have_denied(strategy.account_id, {strategy.pk: (old, replace(old, **after))})


@pytest.mark.parametrize(
    ("key", "at", "over"),
    [
        ("max_positions", "10", "11"),
        ("max_position_pct", "2", "2.0001"),
        ("max_exposure_pct", "100", "100.0001"),
        ("max_sector_pct", "10", "10.0001"),
        ("max_slippage_pct", "0.1", "0.1001"),
        ("max_orders_per_minute", "5", "6"),
    ],
)
def test_what_is_over_a_tighter_limit_would_have_been_denied(
    strategy: Strategy, sent: Sent, key: str, at: str, over: str
) -> None:
    sent(found(key, at))
    sent(found("max_of_something_else", over))
    order = sent(found("account_blocked", "0"), found(key, over))
    new = type(getattr(Limits(), key))(at)

    seen = denied(strategy, **{key: new})

    assert (seen.orders, seen.denied, dict(seen.by_key)) == (3, 1, {key: 1})
    (example,) = seen.examples
    assert (example.order_id, example.symbol, example.keys) == (order.pk, "TSLA", (key,))


@pytest.mark.parametrize("key", ["max_net_exposure_pct", "max_order_qty", "max_order_notional"])
def test_a_limit_where_one_stood_is_judged_by_what_was_found_then(
    strategy: Strategy, sent: Sent, key: str
) -> None:
    sent(found(key, "60"))
    sent(found(key, "60.01"))
    old = Limits(**{key: Decimal(100)})  # type: ignore[arg-type]

    assert dict(denied(strategy, old, **{key: Decimal(60)}).by_key) == {key: 1}


def test_a_size_that_nothing_limited_then_is_judged_by_the_order(
    strategy: Strategy, sent: Sent
) -> None:
    sent(qty=Decimal(50))
    sent(qty=Decimal("50.001"))
    parent = sent(qty=Decimal(1))
    sent(qty=Decimal(500), parent=parent, role="take_profit")

    assert denied(strategy, max_order_qty=Decimal(50)).denied == 1
    assert denied(strategy, max_order_notional=Decimal(12_500)).denied == 1
    assert denied(strategy, max_order_notional=Decimal("12500.25")).denied == 0


def test_what_added_nothing_passes_as_it_would_have_then(strategy: Strategy, sent: Sent) -> None:
    sent(found("max_positions", "15", before="15"))
    sent(found("max_positions", "15", before="14"))

    assert denied(strategy, max_positions=10).denied == 1


@pytest.mark.parametrize(
    ("cost", "buffer", "count"),
    [("900", 10, 0), ("900.01", 10, 1), ("900.01", 9, 0), ("100", 90, 0), ("100.01", 90, 1)],
)
def test_a_larger_buffer_is_judged_by_the_buying_power_of_then(
    strategy: Strategy, sent: Sent, cost: str, buffer: int, count: int
) -> None:
    inputs = {"buying_power": "1000", "reserved": "0"}
    sent(found("insufficient_buying_power", cost, inputs=inputs))

    seen = denied(strategy, buying_power_buffer_pct=Decimal(buffer))

    assert seen.denied == count


def test_money_that_was_reserved_is_not_there_twice(strategy: Strategy, sent: Sent) -> None:
    inputs = {"buying_power": "1000", "reserved": "400"}
    sent(found("insufficient_buying_power", "500", inputs=inputs))
    sent(found("insufficient_buying_power", "501", inputs=inputs))

    assert denied(strategy, buying_power_buffer_pct=Decimal(10)).denied == 1


def test_symbols_are_judged_where_an_order_adds_risk(strategy: Strategy, sent: Sent) -> None:
    sent(symbol="TSLA")
    sent(symbol="TSLA", side="sell")
    sent(symbol="TSLA", side="sell", sells_short=True)
    sent(symbol="KO")

    assert denied(strategy, blocked_symbols=frozenset({"TSLA"})).denied == 2
    assert denied(strategy, allowed_symbols=frozenset({"TSLA"})).denied == 1


def test_types_are_judged_but_those_of_exits_and_replacements(
    strategy: Strategy, sent: Sent
) -> None:
    first = sent(type="stop")
    sent(type="stop", parent=first, role="stop_loss", side="sell")
    sent(type="stop", replaces=first)
    old = replace(Limits(), allowed_order_types=frozenset({"limit", "stop"}))

    seen = denied(strategy, old, allowed_order_types=frozenset({"limit"}))

    assert (seen.orders, seen.denied) == (3, 1)


def test_short_sales_are_judged_where_they_are_no_longer_allowed(
    strategy: Strategy, sent: Sent
) -> None:
    sent(side="sell", sells_short=True)
    sent(side="sell")

    assert denied(strategy, replace(Limits(), allow_short=True), allow_short=False).denied == 1


def test_the_accounts_rate_is_judged_where_the_strategys_own_stays(
    strategy: Strategy, sent: Sent
) -> None:
    sent(found("max_orders_per_minute", "9"), found("max_orders_per_minute", "30"))
    sent(found("max_orders_per_minute", "9"), found("max_orders_per_minute", "31"))
    old = replace(Limits(), max_orders_per_minute=10)

    seen = denied(strategy, old, account_orders_per_minute=30)

    assert dict(seen.by_key) == {"max_orders_per_minute": 1}


def test_a_key_that_is_not_tightened_denies_nothing(strategy: Strategy, sent: Sent) -> None:
    sent(found("max_positions", "40"), symbol="KO")

    loose = denied(strategy, max_positions=30, buy_offset=Decimal(1))
    mixed = denied(strategy, max_positions=30, blocked_symbols=frozenset({"F"}))

    assert (loose.orders, loose.denied, mixed.orders, mixed.denied) == (1, 0, 1, 0)


def test_only_orders_of_the_strategies_that_were_sent_in_the_last_30_days_count(
    strategy: Strategy, sent: Sent
) -> None:
    other = Strategy.objects.create(account=strategy.account, name="other")
    check = found("max_positions", "15")
    now = timezone.now()
    sent(check, created_at=now - timedelta(days=29, hours=23))
    sent(check, created_at=now - timedelta(days=30, seconds=1))
    sent(check, submitted_at=None, status="denied")
    sent(check, submitted_at=None, status="waiting")
    sent(check, strategy=other)

    seen = denied(strategy, max_positions=10)

    assert (seen.orders, seen.denied) == (1, 1)


@pytest.mark.parametrize("actual", ["NaN", "Infinity", "many", None, ""])
def test_a_figure_that_is_none_denies_nothing(
    strategy: Strategy, sent: Sent, actual: object
) -> None:
    sent({"code": "max_positions", "limit": "20", "actual": actual, "ok": True})

    assert denied(strategy, max_positions=10).denied == 0


def test_each_order_counts_once_with_all_keys_and_the_newest_twenty_are_examples(
    strategy: Strategy, sent: Sent
) -> None:
    checks = found("max_positions", "15"), found("max_sector_pct", "25")
    now = timezone.now()
    orders = [sent(*checks, created_at=now - timedelta(minutes=n)) for n in range(25)]

    with CaptureQueriesContext(connection) as queries:
        seen = denied(strategy, max_positions=10, max_sector_pct=Decimal(20))

    assert (seen.orders, seen.denied) == (25, 25)
    assert dict(seen.by_key) == {"max_positions": 25, "max_sector_pct": 25}
    assert [each.order_id for each in seen.examples] == [order.pk for order in orders[:20]]
    assert len([each for each in queries if "orders_order" in each["sql"]]) == 1
