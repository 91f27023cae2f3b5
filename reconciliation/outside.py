"""What the broker's activities tell of trades and money that did not come from Ordinis: kept as
evidence, booked to the cash of the book, and offered as an explanation. Never moves shares.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef

from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import ActivityReport
from positions.models import CashEntry, LedgerEntry
from reconciliation.facts import ZERO, CorporateAction, OutsideTrade
from reconciliation.models import BrokerActivity
from risk.exchange import exchange_day
from risk.figures import database_now

_FILL = "FILL"
# What ends the cause of an entry that takes another one back.
TAKEN_BACK = "/adopted"
# So many days of activities are read at once when something needs an explanation.
_DAYS_BACK = 4


def record(account: BrokerAccount, fills: Iterable[ActivityReport]) -> None:
    """Notes fills of orders that are not ours; what was noted before changes nothing."""
    rows = [_trade(account, fill) for fill in fills if fill.qty and fill.price]
    _store(account, rows, CashEntry.Kind.EXTERNAL_TRADE)


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
        found += [
            _other(account, told)
            for told in broker_for(account).activities(day).items
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
    known = set(
        BrokerActivity.objects.filter(
            account=account, activity_id__in=[row.activity_id for row in rows]
        ).values_list("activity_id", flat=True)
    )
    new = list({row.activity_id: row for row in rows if row.activity_id not in known}.values())
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
                for row in new
                if row.amount
            ],
            ignore_conflicts=True,
        )
    return len(new)


def give_back(account: BrokerAccount, *, since: datetime) -> None:
    """Takes back the cash of trades that turned out to be of an order of ours: adopted, or written
    off and found after all. Their fills carry it from now on."""
    ours = Order.objects.filter(account=account, broker_order_id=OuterRef("broker_order_id"))
    rows = BrokerActivity.objects.filter(
        Exists(ours), account=account, activity_type=_FILL, occurred_at__gte=since
    )
    book_back(account, list(rows))


def book_back(account: BrokerAccount, rows: Sequence[BrokerActivity]) -> None:
    """Books what these trades moved the other way round, once."""
    causes = {f"{row.activity_id}{TAKEN_BACK}": row for row in rows}
    kind = CashEntry.Kind.EXTERNAL_TRADE
    known = CashEntry.objects.filter(account=account, kind=kind, cause__in=list(causes))
    for cause in set(known.values_list("cause", flat=True)):
        del causes[cause]
    CashEntry.objects.bulk_create(
        [
            CashEntry(
                account=account,
                kind=kind,
                cause=cause,
                amount=-row.amount,
                occurred_at=row.occurred_at,
                words="It is an order of ours: its fill carries the money.",
            )
            for cause, row in causes.items()
        ],
        ignore_conflicts=True,
    )


def trades(account: BrokerAccount, *, since: datetime) -> Mapping[str, Sequence[OutsideTrade]]:
    """Trades outside by symbol, oldest first, that no correction has taken over yet."""
    found: dict[str, list[OutsideTrade]] = {}
    ours = Order.objects.filter(account=account, broker_order_id=OuterRef("broker_order_id"))
    corrected = LedgerEntry.objects.filter(
        account=account,
        position__symbol=OuterRef("symbol"),
        kind__in=(LedgerEntry.Kind.CORRECTION, LedgerEntry.Kind.CORPORATE_ACTION),
        occurred_at__gte=OuterRef("occurred_at"),
    ).exclude(qty=0)
    rows = BrokerActivity.objects.filter(
        ~Exists(ours),
        ~Exists(corrected),
        account=account,
        activity_type=_FILL,
        occurred_at__gte=since,
    ).order_by("occurred_at", "pk")
    for row in rows.values_list("symbol", "qty", "price", "occurred_at", "broker_order_id"):
        symbol, qty, price, occurred_at, broker_order_id = row
        if qty is None or price is None:
            continue
        found.setdefault(symbol, []).append(
            OutsideTrade(
                qty=qty,
                price=price,
                occurred_at=occurred_at,
                broker_order_id=broker_order_id,
            )
        )
    return found


def actions(account: BrokerAccount, *, since: datetime) -> Mapping[str, Sequence[CorporateAction]]:
    """What happened to symbols' shares without a trade, by symbol."""
    found: dict[str, list[CorporateAction]] = {}
    rows = BrokerActivity.objects.filter(
        account=account, occurred_at__gte=since, qty__isnull=False
    ).exclude(activity_type__in=(_FILL, "DIV", "CDIV", "DIVNRA"))
    for symbol, kind, qty in rows.values_list("symbol", "activity_type", "qty"):
        found.setdefault(symbol, []).append(CorporateAction(kind=kind, qty=qty))
    return found
