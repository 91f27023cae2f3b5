"""The broker's side of the book: the newest complete answer, whole."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import AccountReport, PositionReport
from positions.broker_view import record
from positions.models import Position

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 17, 0, tzinfo=UTC)


def _figures(equity: str) -> AccountReport:
    return AccountReport(
        account_number="PA1",
        status="ACTIVE",
        equity=Decimal(equity),
        cash=Decimal(0),
        buying_power=Decimal(0),
        trading_blocked=False,
        raw={},
    )


def _held(symbol: str, qty: str) -> PositionReport:
    return PositionReport(
        symbol=symbol,
        qty=Decimal(qty),
        qty_available=Decimal(qty),
        average_price=Decimal(60),
        market_value=Decimal(qty) * 60,
        current_price=Decimal(60),
        raw={},
    )


def _broker_qty() -> dict[str, Decimal]:
    return dict(Position.objects.values_list("symbol", "broker_qty"))


def test_what_a_newer_answer_no_longer_names_is_no_longer_held(account: BrokerAccount) -> None:
    record(account, _figures("1"), [_held("KO", "5"), _held("OKE", "9")], NOON)

    record(account, _figures("1"), [_held("KO", "6")], NOON + timedelta(seconds=1))

    assert _broker_qty() == {"KO": 6, "OKE": 0}


def test_an_older_answer_that_comes_late_changes_nothing(account: BrokerAccount) -> None:
    record(account, _figures("2"), [_held("KO", "6")], NOON)

    record(account, _figures("1"), [_held("KO", "5")], NOON - timedelta(seconds=1))

    account.refresh_from_db()
    assert (account.equity, _broker_qty()) == (2, {"KO": 6})


def test_another_accounts_positions_are_left_alone(account: BrokerAccount) -> None:
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    record(other, _figures("1"), [_held("KO", "7")], NOON)

    record(account, _figures("1"), [], NOON + timedelta(seconds=1))

    assert _broker_qty() == {"KO": 7}
