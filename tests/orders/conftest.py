"""Orders that exist already, and the broker's reports on them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction

from orders import lifecycle, statuses, working
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.broker.port import ExecutionReport, OrderReport
from risk.limits import change

START = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)
BROKER = Origin(Source.STREAM, "broker")


@pytest.fixture(autouse=True)
def _not_about_limits(request: pytest.FixtureRequest) -> None:
    """Orders are taken here whatever they come to, but where a test is about that."""
    if "account" in request.fixturenames and "default_limits" not in request.keywords:
        request.getfixturevalue("wide_limits")


@pytest.fixture
def submitted(strategy: Strategy) -> Order:
    """A buy of 100 OKE at 70, handed to the broker a moment ago."""
    order = Order(
        id=uuid4(),
        account=strategy.account,
        strategy=strategy,
        client_order_id="oke-1",
        fingerprint="f" * 64,
        symbol="OKE",
        side="buy",
        qty=Decimal(100),
        type="limit",
        time_in_force="day",
        limit_price=Decimal(70),
        correlation_id="test",
        submitted_at=datetime.now(UTC),
    )
    with transaction.atomic():
        lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, "strategy rsi"))
    return order


ReportMaker = Callable[..., OrderReport]


@pytest.fixture
def report() -> ReportMaker:
    """A report on `submitted`; `at` is the broker's time in seconds, `execution` is
    (id, shares, price)."""

    def make(
        status: str,
        *,
        filled: str = "0",
        average: str | None = None,
        at: float = 0,
        execution: tuple[str, str, str] | None = None,
        **changes: Any,
    ) -> OrderReport:
        moment = START + timedelta(seconds=at)
        done = execution and ExecutionReport(
            execution_id=execution[0],
            qty=Decimal(execution[1]),
            price=Decimal(execution[2]),
            occurred_at=moment,
        )
        values: dict[str, Any] = {
            "broker_order_id": "broker-oke-1",
            "client_order_id": "oke-1",
            "symbol": "OKE",
            "side": "buy",
            "qty": Decimal(100),
            "type": "limit",
            "time_in_force": "day",
            "limit_price": Decimal(70),
            "stop_price": None,
            "status": status,
            "filled_qty": Decimal(filled),
            "average_fill_price": None if average is None else Decimal(average),
            "updated_at": moment,
            "execution": done or None,
            "raw": {"status": status, "filled_qty": filled, "price": 70.5},
        }
        return OrderReport(**{**values, **changes})

    return make


@pytest.fixture
def as_it_fills(account: BrokerAccount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exits are sent share by share, and a part at once after the one before."""
    monkeypatch.setattr(working, "MARGIN", timedelta(0))
    change(
        account=account,
        strategy=None,
        values={"dependents_activation": "as_it_fills"},
        reason="The test wants it.",
        actor="test",
    )
