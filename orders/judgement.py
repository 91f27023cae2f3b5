"""Judges what would be sent, under the account's lock, and concludes before the lock is let go:
so two orders can never spend the same money or sell the same shares.

No network call is made inside a transaction: figures that got too old while waiting for the lock
are asked for again with the lock let go.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from orders import statuses
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from risk import figures
from risk.checks import Context, Intent, Violation, evaluate, usable_buying_power
from risk.commitments import Commitment, Committed, committed
from risk.limits import Limits

T = TypeVar("T")
_MOST_QUESTIONS = 4
_MARGIN = timedelta(seconds=settings.ACKNOWLEDGEMENT_MARGIN)


def judge(
    account: BrokerAccount,
    intent: Intent,
    limits: Limits,
    conclude: Callable[[BrokerAccount, list[Violation]], T],
    *,
    first: Callable[[], T | None] = lambda: None,
    fresh: bool = False,
) -> T:
    """What `conclude` makes of the locked account and all violations; or what `first` finds,
    which is asked before anything else once the lock is held.

    Shared figures are enough while the order uses little of what is left; a denial, and an order
    that takes more than half of it, are only ever decided on figures asked for anew, as is
    everything with `fresh`. Raises BrokerUnavailable or BrokerRefused.
    """
    fresh = fresh or settings.FIGURES_MAX_AGE == 0
    snapshot = figures.ask(account) if fresh else figures.shared(account)
    for _ in range(_MOST_QUESTIONS):
        with transaction.atomic():
            locked = BrokerAccount.lock(account.pk)
            if (found := first()) is not None:
                return found
            if not snapshot.is_older_than(max(settings.FIGURES_MAX_AGE, 1)):
                context = _context(account, intent.symbol, snapshot)
                violations = [*_barred(locked, intent), *evaluate(intent, context, limits)]
                if fresh or not (violations or _is_thin(intent, context, limits)):
                    return conclude(locked, violations)
        snapshot, fresh = figures.ask(account), True
    raise BrokerUnavailable("Other orders of the account kept it busy for too long.")


def reserved(account_id: int, asked_at: datetime) -> Decimal:
    """Dollars that orders commit beyond the figures of a snapshot (`reserved` of GET /account)."""
    return _committed(_not_contained(account_id, asked_at), asked_at).money


def _barred(account: BrokerAccount, intent: Intent) -> list[Violation]:
    """Nothing is sent into a cancel of all: it would be cancelled, or escape it."""
    until = account.cancelling_until
    if until is None or until < account.database_time:
        return []
    if account.cancelling_symbol not in ("", intent.symbol):
        return []
    return [
        Violation(
            code="cancelling_all",
            message="All open orders are being cancelled. Send it again when that is done.",
            limit=Decimal(0),
            actual=Decimal(1),
        )
    ]


def _is_thin(intent: Intent, context: Context, limits: Limits) -> bool:
    if intent.side == "sell":
        free = context.free_qty - context.committed.shares.get(intent.symbol, Decimal(0))
        return intent.needs * 2 > free
    return intent.cost * 2 > usable_buying_power(context, limits)


def _context(account: BrokerAccount, symbol: str, snapshot: figures.Figures) -> Context:
    held = snapshot.positions.get(symbol)
    rows = _not_contained(account.pk, snapshot.asked_at)
    return Context(
        account=snapshot.account,
        free_qty=held.qty_available if held else Decimal(0),
        committed=_committed(rows, snapshot.asked_at),
        unresolved_symbols=frozenset(
            row["symbol"] for row in rows if row["status"] == statuses.UNRESOLVED
        ),
    )


_COLUMNS = (
    *("symbol", "side", "status", "qty", "filled_qty", "average_fill_price"),
    *("limit_price", "worst_price", "acknowledged_at"),
    *("replaces__status", "replaces__qty", "replaces__filled_qty", "replaces__worst_price"),
)


def _not_contained(account_id: int, asked_at: datetime) -> list[dict[str, Any]]:
    """The orders that a snapshot asked for at `asked_at` may lack, as plain values: there may be
    hundreds within a second. The leg of an OCO pair holds the shares of its order."""
    rows = Order.objects.filter(
        Q(acknowledged_at__gt=asked_at - _MARGIN)
        | Q(acknowledged_at=None, status__in=sorted(statuses.UNPROVED)),
        account_id=account_id,
        leg_of=None,
    )
    return list(rows.order_by().values(*_COLUMNS))


def _committed(rows: Iterable[dict[str, Any]], asked_at: datetime) -> Committed:
    return committed((_commitment(row) for row in rows), asked_at, _MARGIN)


def _commitment(row: dict[str, Any]) -> Commitment:
    replaced_qty = Decimal(0)
    if row["replaces__status"] is not None:
        replaced_qty = _open_qty(
            row["replaces__status"], row["replaces__qty"], row["replaces__filled_qty"]
        )
    return Commitment(
        symbol=row["symbol"],
        side=row["side"],
        limit_price=row["worst_price"] or row["limit_price"] or Decimal(0),
        # What the chain had filled before is its predecessor's.
        filled_qty=max(row["filled_qty"] - (row["replaces__filled_qty"] or 0), Decimal(0)),
        average_fill_price=row["average_fill_price"],
        open_qty=_open_qty(row["status"], row["qty"], row["filled_qty"]),
        acknowledged_at=row["acknowledged_at"],
        replaced_qty=replaced_qty,
        replaced_cost=replaced_qty * (row["replaces__worst_price"] or Decimal(0)),
    )


def _open_qty(status: str, qty: Decimal, filled_qty: Decimal) -> Decimal:
    return max(qty - filled_qty, Decimal(0)) if statuses.is_open(status) else Decimal(0)
