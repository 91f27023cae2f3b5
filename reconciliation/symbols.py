"""Reconciles single symbols soon after an order of theirs has ended (SPEC R3), all those of one
account together. A difference becomes a suspect, which the second look takes up; nothing is
concluded here.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from django.db.models import Max, Q

from orders import statuses
from orders.models import OrderHistory
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import Broker, PositionReport
from positions.models import Position
from reconciliation import breaks
from reconciliation.compare import compare
from reconciliation.facts import Book, BookPosition, BrokerPosition, Facts
from reconciliation.models import Break, Suspect
from reconciliation.run import alone
from reconciliation.singly import is_not_offered
from risk.figures import database_now

# What ended longer ago has been compared by a whole run since.
_LATELY = timedelta(minutes=2)
# An order's step carries the time of the process that took it in, a comparison the database's.
_CLOCKS_DIFFER = timedelta(seconds=0.5)


def due(account: BrokerAccount, now: datetime) -> list[str]:
    """Symbols of which an order has ended since they were last compared."""
    ended = (
        OrderHistory.objects.filter(
            order__account=account,
            order__acknowledged_at__isnull=False,
            to_status__in=sorted(statuses.CLOSED),
            received_at__gte=now - _LATELY,
        )
        .order_by()
        .values_list("order__symbol")
        .annotate(last=Max("received_at"), filled=Max("order__filled_qty"))
    )
    found = {symbol: (last, filled) for symbol, last, filled in ended}
    compared = dict(
        Position.objects.filter(account=account, symbol__in=list(found)).values_list(
            "symbol", "compared_at"
        )
    )
    return sorted(
        symbol
        for symbol, (last, filled) in found.items()
        if (symbol in compared or filled) and _is_due(compared.get(symbol), last)
    )


def _is_due(compared_at: datetime | None, ended_at: datetime) -> bool:
    return compared_at is None or compared_at < ended_at + _CLOCKS_DIFFER


def reconcile_due(account: BrokerAccount) -> list[str]:
    """Compares the symbols that are due; returns those that differ.

    Raises BrokerUnavailable or BrokerRefused, with nothing concluded; Busy.
    """
    if not due(account, database_now()):
        return []
    with alone(account):
        symbols = due(account, database_now())  # a run may have ended meanwhile
        return _reconcile(account, symbols) if symbols else []


def _reconcile(account: BrokerAccount, symbols: list[str]) -> list[str]:
    asked_at = database_now()
    theirs = _ask(account, symbols)
    rows = Position.objects.filter(account=account, symbol__in=symbols)
    ours = {
        symbol: BookPosition(qty=qty, average_price=average)
        for symbol, qty, average in rows.values_list("symbol", "qty", "average_price")
    }
    found = compare(Book(positions=ours), Facts(positions=theirs))
    single = [each for item in found for each in (item.members or (item,))]
    standing = Break.objects.filter(
        account=account, ended_at=None, subject__in=[item.subject for item in single]
    ).values_list("subject", flat=True)
    Suspect.objects.bulk_create(
        [
            breaks.suspect(account, item, asked_at)
            for item in single
            if item.subject not in set(standing)
        ],
        ignore_conflicts=True,  # it is one already
    )
    Position.objects.filter(
        Q(compared_at=None) | Q(compared_at__lt=asked_at), account=account, symbol__in=symbols
    ).update(compared_at=asked_at)
    return [item.symbol for item in single]


def _ask(account: BrokerAccount, symbols: list[str]) -> Mapping[str, BrokerPosition]:
    broker = broker_for(account)
    held = _one(broker, symbols[0]) if len(symbols) == 1 else None
    if held is None:  # one request for all: the limit is shared with orders
        listing = broker.positions()
        if not listing.complete:
            raise BrokerUnavailable(f"The positions could not all be read. {listing.reason}")
        held = [report for report in listing.items if report.symbol in symbols]
    return {
        report.symbol: BrokerPosition(
            qty=Decimal(report.qty),
            average_price=report.average_price,
            price=report.current_price,
        )
        for report in held
    }


def _one(broker: Broker, symbol: str) -> list[PositionReport] | None:
    """None where the broker does not answer for one position alone."""
    try:
        report = broker.position(symbol)
    except BrokerUnavailable as error:
        if is_not_offered(error):
            return None
        raise
    return [] if report is None else [report]
