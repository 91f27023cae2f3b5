"""What the broker's activities tell of trades and money that did not come from Ordinis: kept as
evidence, and booked to the cash of the book. Never moves shares; what they explain, and for how
long, is `reconciliation.causes`.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Subquery, Value
from django.db.models.functions import Concat

from orders.fills import REVERSED
from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import ActivityReport
from positions.models import CashEntry
from reconciliation.facts import ZERO
from reconciliation.models import BrokerActivity
from reconciliation.singly import is_not_offered
from risk.exchange import exchange_day
from risk.figures import database_now

_FILL = "FILL"
# What ends the cause of an entry that takes another one back.
TAKEN_BACK = "/adopted"
# So many days of activities are read at once when something needs an explanation.
_DAYS_BACK = 4


def record(account: BrokerAccount, fills: Iterable[ActivityReport]) -> None:
    """Notes fills of orders that are not ours; what was noted before changes nothing."""
    _store(account, _trades(account, fills), CashEntry.Kind.EXTERNAL_TRADE)


def unrecorded(
    account: BrokerAccount, fills: Iterable[ActivityReport]
) -> tuple[list[BrokerActivity], Decimal]:
    """The rows that `record` would add, and what they would add to cash; adds nothing."""
    rows = _new(account, _trades(account, fills))
    return rows, sum((row.amount for row in _with_cash(account, rows)), ZERO)


def _trades(account: BrokerAccount, fills: Iterable[ActivityReport]) -> list[BrokerActivity]:
    return [_trade(account, fill) for fill in fills if fill.qty and fill.price]


def read_activities(account: BrokerAccount, now: datetime) -> bool:
    """Reads what else moved money or shares lately, day by day; whether anything new was found.

    Raises BrokerUnavailable or BrokerRefused.
    """
    assert account.opened_at is not None, "the book was opened first"
    today, opened = exchange_day(now), exchange_day(account.opened_at)
    first = max(opened, today - timedelta(days=_DAYS_BACK))
    found: list[BrokerActivity] = []
    day: date = first
    while day <= today:
        try:
            listing = broker_for(account).activities(day)
        except BrokerUnavailable as error:
            if is_not_offered(error):
                return False
            raise
        if not listing.complete:
            raise BrokerUnavailable(
                f"The broker's activities could not all be read. {listing.reason}"
            )
        found += [
            _other(account, told)
            for told in listing.items
            if _counts(told, account.opened_at, opened)
        ]
        day += timedelta(days=1)
    return _store(account, found, CashEntry.Kind.ACTIVITY) > 0


def _counts(told: ActivityReport, opened_at: datetime, opened: date) -> bool:
    """What came before the book was opened is in its opening; of that day's own activities those
    without a time can't be told apart, and are taken to be."""
    if told.activity_type == _FILL or str(told.raw.get("status", "executed")) != "executed":
        return False
    if told.occurred_at is None:
        return False
    timed = "T" in str(told.raw.get("created_at") or told.raw.get("transaction_time") or "")
    return told.occurred_at > opened_at if timed else told.occurred_at.date() > opened


def _trade(account: BrokerAccount, fill: ActivityReport) -> BrokerActivity:
    assert fill.qty is not None
    assert fill.price is not None
    sells = str(fill.side or "").startswith("sell")  # sell, sell_short
    qty = -abs(fill.qty) if sells else abs(fill.qty)
    return BrokerActivity(
        account=account,
        activity_id=fill.activity_id,
        activity_type=_FILL,
        symbol=fill.symbol or "",
        qty=qty,
        price=fill.price,
        amount=-qty * fill.price,
        broker_order_id=fill.order_id or "",
        occurred_at=fill.occurred_at or database_now(),
        raw=dict(fill.raw),
    )


def _other(account: BrokerAccount, told: ActivityReport) -> BrokerActivity:
    assert told.occurred_at is not None, "what has no time does not count"
    return BrokerActivity(
        account=account,
        activity_id=told.activity_id,
        activity_type=told.activity_type,
        symbol=told.symbol or "",
        qty=told.qty,
        price=told.price,
        amount=told.net_amount or ZERO,
        occurred_at=told.occurred_at,
        raw=dict(told.raw),
    )


def _store(account: BrokerAccount, rows: list[BrokerActivity], kind: CashEntry.Kind) -> int:
    """Activity and cash in one transaction, each once however often it is read; says how many
    are new."""
    new = _new(account, rows)
    if not new:
        return 0
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        BrokerActivity.objects.bulk_create(new, ignore_conflicts=True)
        CashEntry.objects.bulk_create(
            [
                CashEntry(
                    account=account,
                    kind=kind,
                    cause=row.activity_id,
                    amount=row.amount,
                    occurred_at=row.occurred_at,
                    words=str(row.raw.get("description") or f"{row.activity_type} {row.symbol}"),
                )
                for row in _with_cash(account, new)
            ],
            ignore_conflicts=True,
        )
    return len(new)


def _new(account: BrokerAccount, rows: Iterable[BrokerActivity]) -> list[BrokerActivity]:
    told = {row.activity_id: row for row in rows}
    known = BrokerActivity.objects.filter(account=account, activity_id__in=list(told))
    for activity_id in known.values_list("activity_id", flat=True):
        del told[activity_id]
    return list(told.values())


def _with_cash(account: BrokerAccount, rows: Iterable[BrokerActivity]) -> list[BrokerActivity]:
    """Those whose cash is to be booked: not what the broker's cash, taken over since, contains."""
    taken_over_at = _cash_taken_over_at(account)
    return [
        row
        for row in rows
        if row.amount and (taken_over_at is None or row.occurred_at > taken_over_at)
    ]


def _cash_taken_over_at(account: BrokerAccount) -> datetime | None:
    """When the book last took over the broker's cash: opened, corrected or rebuilt."""
    entries = CashEntry.objects.filter(account=account, kind=CashEntry.Kind.CORRECTION)
    corrected_at = entries.aggregate(at=Max("occurred_at"))["at"]
    return max(filter(None, (corrected_at, account.opened_at)), default=None)


def give_back(
    account: BrokerAccount, *, since: datetime | None = None, order: Order | None = None
) -> None:
    """Takes back the cash of trades that turned out to be of an order of ours (of this one, or of
    any): adopted, or written off and found after all. Their fills carry it from now on."""
    ours = Order.objects.filter(account=account, broker_order_id=OuterRef("broker_order_id"))
    entries = CashEntry.objects.filter(account=account, kind=CashEntry.Kind.EXTERNAL_TRADE)
    rows = BrokerActivity.objects.filter(
        Exists(entries.filter(cause=OuterRef("activity_id"))),
        ~Exists(entries.filter(cause=Concat(OuterRef("activity_id"), Value(TAKEN_BACK)))),
        account=account,
        activity_type=_FILL,
    ).annotate(order=Subquery(ours.values("pk")[:1]))
    rows = rows.filter(order__isnull=False) if order is None else rows.filter(order=order.pk)
    if since is not None:
        rows = rows.filter(occurred_at__gte=since)
    if found := list(rows):
        _book_back(account, found)


def _book_back(account: BrokerAccount, rows: Iterable[Any]) -> None:
    """Books what these trades moved the other way round, once; `rows` carry their `order`. Where
    an order's fills were reversed, the broker's cash had been taken over since, and with it the
    trades until then."""
    taken_over_at = _cash_taken_over_at(account)
    causes = CashEntry.objects.filter(
        account=account, kind=CashEntry.Kind.CORRECTION, cause__endswith=REVERSED
    ).values_list("cause", flat=True)
    reversed_orders = {cause.partition("/")[0] for cause in causes}
    CashEntry.objects.bulk_create(
        [
            CashEntry(
                account=account,
                kind=CashEntry.Kind.EXTERNAL_TRADE,
                cause=f"{row.activity_id}{TAKEN_BACK}",
                amount=-row.amount,
                occurred_at=row.occurred_at,
                words="It is an order of ours: its fill carries the money.",
            )
            for row in rows
            if str(row.order) not in reversed_orders
            or taken_over_at is None
            or row.occurred_at > taken_over_at
        ],
        ignore_conflicts=True,
    )
