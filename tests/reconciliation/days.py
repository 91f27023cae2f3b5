"""A day of the exchange with known figures, as rows: Friday, 2026-11-20, which its report covers
from Thursday 16:10 to Friday 16:10 in New York."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from orders.models import Fill, Order
from ordinis.accounts.models import BrokerAccount, Strategy
from positions.models import LedgerEntry, Position
from reconciliation.models import ReconciliationReport, Snapshot
from risk.exchange import NEW_YORK

FRIDAY = date(2026, 11, 20)


def et(clock: str, day: date = FRIDAY) -> datetime:
    return datetime.combine(day, datetime.strptime(clock, "%H:%M:%S").time(), NEW_YORK)  # noqa: DTZ007


BEGINS = et("16:10:00", date(2026, 11, 19))
ENDS = et("16:10:00")
DUE = et("16:15:00")


def placed(
    strategy: Strategy, status: str, *, at: datetime | None = None, took: float = 0.2, **given: Any
) -> Order:
    """An order that was judged at `at` and, where it was sent, acknowledged so much later."""
    at = at or et("11:00:00")
    is_sent = status not in ("denied", "waiting")
    is_known = is_sent and status not in ("rejected", "unresolved", "failed")
    key = uuid4()
    values: dict[str, Any] = {
        "id": key,
        "chain": key,
        "account": strategy.account,
        "strategy": strategy,
        "client_order_id": f"{key}",
        "fingerprint": "",
        "symbol": "OKE",
        "side": "buy",
        "qty": Decimal(100),
        "filled_qty": Decimal(100 if status == "filled" else 0),
        "type": "limit",
        "time_in_force": "day",
        "limit_price": Decimal(70),
        "status": status,
        "attempts": int(is_sent),
        "correlation_id": "c",
        "created_at": at,
        "updated_at": at,
        "judged_at": at,
        "submitted_at": at if is_sent else None,
        "acknowledged_at": at + timedelta(seconds=took) if is_known else None,
    }
    return Order.objects.create(**{**values, **given})


def filled(
    order: Order, qty: str, price: str, *, at: datetime | None = None, profit: str = "0"
) -> None:
    """Shares of an order that changed hands, in the book."""
    at = at or et("11:00:01")
    position, _ = Position.objects.get_or_create(account=order.account, symbol=order.symbol)
    seq = LedgerEntry.objects.filter(position=position).count() + 1
    entry = LedgerEntry.objects.create(
        account=order.account,
        position=position,
        seq=seq,
        kind="fill",
        cause=f"{order.pk}/{seq}",
        qty=order.signed * Decimal(qty),
        price=Decimal(price),
        qty_after=Decimal(0),
        realized_profit=Decimal(profit),
        occurred_at=at,
        recorded_at=at,
    )
    Fill.objects.create(
        order=order,
        account=order.account,
        execution_id=f"{uuid4()}",
        qty=Decimal(qty),
        price=Decimal(price),
        occurred_at=at,
        recorded_at=at,
        ledger_entry=entry,
    )


def compared(account: BrokerAccount, at: datetime, **given: Any) -> ReconciliationReport:
    """A complete comparison of 10 positions in 0.2 s, of a reading of 12, unless told otherwise."""
    values: dict[str, Any] = {
        "mode": "manual",
        "complete": True,
        "started_at": at,
        "duration_seconds": Decimal("0.2"),
        "compared_count": 10,
    }
    complete = given.get("complete", True)
    snapshot = Snapshot.objects.create(
        account=account, asked_at=at, complete=complete, positions=12 if complete else 0
    )
    return ReconciliationReport.objects.create(
        account=account, snapshot=snapshot, **{**values, **given}
    )


def opened(name: str = "main", **given: Any) -> BrokerAccount:
    """An account whose book was taken over long before."""
    values = {
        "broker": "simulator",
        "mode": "simulated",
        "opened_at": et("09:00:00", date(2026, 1, 5)),
    }
    return BrokerAccount.objects.create(name=name, **{**values, **given})
