"""The broker's side of the book: what it last told us, kept beside ours and never added to it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Q

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import AccountReport, PositionReport
from positions.models import Position

# One statement of seven arrays, however many positions: the account's lock is held meanwhile, and
# orders wait for it.
_UPSERT = """
INSERT INTO positions_position (
    account_id, symbol, qty, status, closed_reason, ledger_version, realized_profit, cash_flow,
    broker_qty, broker_qty_available, broker_average_price, broker_market_value, broker_price,
    broker_as_of)
SELECT %s, told.symbol, 0, 'closed', '', 0, 0, 0,
    told.qty, told.available, told.average, told.value, told.price, %s
FROM unnest(%s::varchar[], %s::numeric[], %s::numeric[], %s::numeric[], %s::numeric[],
    %s::numeric[]) AS told(symbol, qty, available, average, value, price)
ON CONFLICT (account_id, symbol) DO UPDATE SET
    broker_qty = excluded.broker_qty,
    broker_qty_available = excluded.broker_qty_available,
    broker_average_price = excluded.broker_average_price,
    broker_market_value = excluded.broker_market_value,
    broker_price = excluded.broker_price,
    broker_as_of = excluded.broker_as_of
"""


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
        _store(locked, sorted(held, key=lambda report: report.symbol), asked_at)
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


def _store(account: BrokerAccount, held: Sequence[PositionReport], asked_at: datetime) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            _UPSERT,
            [
                account.pk,
                asked_at,
                [report.symbol for report in held],
                [report.qty for report in held],
                [report.qty_available for report in held],
                [report.average_price for report in held],
                [report.market_value for report in held],
                [report.current_price for report in held],
            ],
        )
