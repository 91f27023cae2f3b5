"""The checks at their limits: on it, one step under, one step over, and broken."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ordinis.broker.port import AccountReport
from risk.checks import Context, Intent, evaluate
from risk.commitments import Commitment, Committed, committed
from risk.limits import Limits

ASKED = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def _context(
    *,
    buying_power: str = "1000",
    money: str = "0",
    free: str = "0",
    sold: str = "0",
    blocked: bool = False,
    unresolved: frozenset[str] = frozenset(),
) -> Context:
    return Context(
        account=AccountReport(
            account_number="PA1",
            status="ACTIVE",
            equity=Decimal(0),
            cash=Decimal(0),
            buying_power=Decimal(buying_power),
            trading_blocked=blocked,
            raw={},
        ),
        free_qty=Decimal(free),
        committed=Committed(Decimal(money), {"KO": Decimal(sold)}),
        unresolved_symbols=unresolved,
    )


def _intent(side: str, qty: str, price: str = "10") -> Intent:
    return Intent(symbol="KO", side=side, qty=Decimal(qty), limit_price=Decimal(price))


def _codes(intent: Intent, context: Context) -> list[str]:
    return [violation.code for violation in evaluate(intent, context, Limits())]


@pytest.mark.parametrize(
    ("qty", "price", "passes"),
    [("99", "10", True), ("98", "10", True), ("1", "990.01", False), ("100", "10", False)],
)
def test_buying_power_less_the_buffer_of_1_pct_is_the_limit(
    qty: str, price: str, passes: bool
) -> None:
    expected = [] if passes else ["insufficient_buying_power"]

    assert _codes(_intent("buy", qty, price), _context()) == expected


def test_what_orders_on_their_way_commit_is_not_spent_again() -> None:
    assert _codes(_intent("buy", "59"), _context(money="400")) == []
    assert _codes(_intent("buy", "60"), _context(money="400")) == ["insufficient_buying_power"]


@pytest.mark.parametrize(("qty", "passes"), [("39", True), ("40", True), ("41", False)])
def test_a_sell_takes_no_more_than_is_free(qty: str, passes: bool) -> None:
    expected = [] if passes else ["insufficient_quantity"]

    assert _codes(_intent("sell", qty), _context(free="50", sold="10")) == expected


def test_nothing_is_sold_short() -> None:
    assert _codes(_intent("sell", "1"), _context(free="0")) == ["insufficient_quantity"]
    assert _codes(_intent("sell", "1"), _context(free="-5")) == ["insufficient_quantity"]


def test_negative_buying_power_lets_no_buy_pass() -> None:
    assert _codes(_intent("buy", "1", "0.01"), _context(buying_power="-50")) == [
        "insufficient_buying_power"
    ]


def test_all_violations_come_back_at_once() -> None:
    context = _context(blocked=True, buying_power="0", unresolved=frozenset({"KO"}))

    assert _codes(_intent("buy", "1"), context) == [
        "account_blocked",
        "symbol_unresolved",
        "insufficient_buying_power",
    ]


def _commitment(**changes: object) -> Commitment:
    values: dict[str, object] = {
        "symbol": "KO",
        "side": "buy",
        "limit_price": Decimal(40),
        "filled_qty": Decimal(0),
        "average_fill_price": None,
        "open_qty": Decimal(10),
        "acknowledged_at": None,
    }
    return Commitment(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("order", "money"),
    [
        (_commitment(), 400),
        # Fills free nothing: what has filled counts at its cost, the rest at its limit.
        (
            _commitment(filled_qty=Decimal(4), average_fill_price=Decimal(39), open_qty=Decimal(6)),
            4 * 39 + 6 * 40,
        ),
        # A remainder that is proved dead frees itself, what filled of it does not.
        (
            _commitment(filled_qty=Decimal(4), average_fill_price=Decimal(39), open_qty=Decimal(0)),
            4 * 39,
        ),
        (_commitment(acknowledged_at=ASKED - SECOND), 0),
        (_commitment(acknowledged_at=ASKED - SECOND + timedelta(microseconds=1)), 400),
        (_commitment(acknowledged_at=ASKED + SECOND), 400),
        (_commitment(side="sell"), 0),
    ],
)
def test_what_an_order_commits(order: Commitment, money: int) -> None:
    assert committed([order], ASKED, SECOND).money == money


def test_sells_commit_their_shares_filled_or_not() -> None:
    orders = [
        _commitment(side="sell", filled_qty=Decimal(3), open_qty=Decimal(2)),
        _commitment(side="sell", acknowledged_at=ASKED - 2 * SECOND),
    ]

    assert committed(orders, ASKED, SECOND).shares == {"KO": Decimal(5)}
