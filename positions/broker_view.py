"""The broker's side of the book: what it last told us, kept beside ours and never added to it."""

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import AccountReport, PositionReport
from positions.models import Position

_COLUMNS = (
    "broker_qty",
    "broker_qty_available",
    "broker_average_price",
    "broker_market_value",
    "broker_price",
    "broker_as_of",
)


def record(
    account: BrokerAccount,
    figures: AccountReport,
    held: Iterable[PositionReport],
    asked_at: datetime,
) -> None:
    """Stores a complete snapshot, unless a newer one is stored already."""
    with transaction.atomic():
        locked = BrokerAccount.lock(account.pk)
        if locked.as_of is not None and locked.as_of > asked_at:
            return
        locked.equity, locked.cash = figures.equity, figures.cash
        locked.buying_power, locked.as_of = figures.buying_power, asked_at
        locked.save(update_fields=("equity", "cash", "buying_power", "as_of"))
        rows = [
            Position(
                account=locked,
                symbol=report.symbol,
                broker_qty=report.qty,
                broker_qty_available=report.qty_available,
                broker_average_price=report.average_price,
                broker_market_value=report.market_value,
                broker_price=report.current_price,
                broker_as_of=asked_at,
            )
            for report in sorted(held, key=lambda report: report.symbol)
        ]
        Position.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=("account", "symbol"),
            update_fields=_COLUMNS,
        )
        # What a complete answer does not name, the broker does not hold.
        Position.objects.filter(
            Q(broker_as_of=None) | Q(broker_as_of__lt=asked_at), account=locked
        ).update(
            broker_qty=0,
            broker_qty_available=0,
            broker_average_price=None,
            broker_market_value=0,
            broker_as_of=asked_at,
        )
