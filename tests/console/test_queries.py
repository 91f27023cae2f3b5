"""Lists ask the database as often for 50 rows as for 5, and never count a whole table."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from orders.models import Order
from ordinis.accounts.models import ApiToken, BrokerAccount, Strategy
from ordinis.alerts.models import Alert, raise_alert
from positions.models import Instrument
from reconciliation.models import ReconciliationReport
from risk.limits import change
from tests.console.conftest import Browse, waiting


def orders(account: BrokerAccount, count: int) -> None:
    strategy, _ = Strategy.objects.get_or_create(account=account, name="rsi")
    Order.objects.bulk_create(
        Order(
            account=account,
            strategy=strategy,
            client_order_id=f"{uuid4()}",
            fingerprint="",
            symbol="TSLA",
            side="buy",
            qty=Decimal(50),
            type="limit",
            time_in_force="day",
            limit_price=Decimal("249.93"),
            status="new",
            correlation_id="c",
            chain=uuid4(),
        )
        for _ in range(count)
    )


def committed(account: BrokerAccount, count: int) -> None:
    BrokerAccount.objects.update(as_of=timezone.now(), buying_power=Decimal(1_000_000))
    orders(account, count)


def drifts(account: BrokerAccount, count: int) -> None:
    """Positions, breaks and corrections."""
    for _ in range(count):
        waiting(account, symbol=f"X{uuid4().hex[:8].upper()}")


def reports(account: BrokerAccount, count: int) -> None:
    ReconciliationReport.objects.bulk_create(
        ReconciliationReport(
            account=account,
            mode="manual",
            complete=True,
            started_at=timezone.now() - timedelta(minutes=number),
            duration_seconds=Decimal("0.2"),
        )
        for number in range(count)
    )


def alerts(account: BrokerAccount, count: int) -> None:
    for _ in range(count):
        raise_alert(
            account.pk,
            code="late_report",
            subject=f"{uuid4()}",
            severity=Alert.Severity.CRITICAL,
            message="Believed canceled, but the broker reports filled.",
        )


def strategies(account: BrokerAccount, count: int) -> None:
    for _ in range(count):
        name = f"s-{uuid4().hex[:8]}"
        strategy = Strategy.objects.create(account=account, name=name)
        ApiToken.issue(strategy, ("read",))


def limits(account: BrokerAccount, count: int) -> None:
    for number in range(count):
        change(
            account=account,
            strategy=None,
            values={"buy_offset": Decimal(number)},
            reason="Trying.",
            actor="ann",
        )


def instruments(account: BrokerAccount, count: int) -> None:
    Instrument.objects.bulk_create(
        Instrument(
            symbol=f"I{uuid4().hex[:8].upper()}",
            name="Some company",
            sector="Energy",
            source="A list",
            as_of=timezone.localdate(),
        )
        for _ in range(count)
    )


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("/", drifts),
        ("/", orders),
        ("/", alerts),
        ("/orders/order/", orders),
        ("/orders/order/commitments/", committed),
        ("/positions/position/", drifts),
        ("/reconciliation/break/", drifts),
        ("/reconciliation/correction/", drifts),
        ("/reconciliation/reconciliationreport/", reports),
        ("/risk/risklimits/", limits),
        ("/risk/risklimits/", strategies),
        ("/accounts/strategy/", strategies),
        ("/accounts/apitoken/", strategies),
        ("/alerts/alert/", alerts),
        ("/positions/instrument/", instruments),
    ],
)
def test_fifty_rows_take_as_many_queries_as_five(
    browse: Browse,
    account: BrokerAccount,
    path: str,
    make: Callable[[BrokerAccount, int], None],
) -> None:
    client = browse("Administrator", "Approver")
    make(account, 5)
    for_five = queries(client, path)
    make(account, 45)
    for_fifty = queries(client, path)

    assert len(for_fifty) == len(for_five), "\n".join(for_fifty)
    assert len(for_fifty) <= 24


def queries(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in captured]


def test_the_orders_are_paged_without_counting_them(browse: Browse, account: BrokerAccount) -> None:
    orders(account, 120)
    client = browse("Viewer")
    asked = queries(client, "/orders/order/")
    pages = [client.get("/orders/order/", {"p": str(n)}).content.decode() for n in (1, 2, 3)]

    assert not [sql for sql in asked if "COUNT(" in sql and "orders_order" in sql]
    assert ["Next page" in page for page in pages] == [True, True, False]
    assert [page.count("<tr>") - 1 for page in pages] == [50, 50, 20]
