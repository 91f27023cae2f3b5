"""A person makes an external order ours (R6): it counts from then on, and can be cancelled here.

What of it had filled before is booked as its fills, and what had been booked of that as trades made
outside is reversed with it, in one transaction. Changes nothing at the broker.
"""

from dataclasses import dataclass
from decimal import Decimal

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, Sum
from django.db.models.functions import Abs

from orders import adopting, quotes
from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.broker.port import OrderReport
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from positions.models import LedgerEntry
from reconciliation import history, outside
from reconciliation.models import Break, BrokerActivity, Kind
from reconciliation.run import Busy, alone
from risk import figures


class NotAdopted(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What the broker says: the order, the shares of its symbol (signed), a price of it now."""

    report: OrderReport
    held: Decimal
    price: Decimal | None


def adopt(row: Break, *, by: User, reason: str) -> Order:
    """The order of an `order_external` break as one of ours; again, the same order.

    Raises NotAdopted, with nothing changed, and ValueError without a reason.
    """
    reason = reason.strip()
    if not reason:
        raise ValueError("Say why: a reason is required.")
    if row.kind != Kind.ORDER_EXTERNAL:
        raise NotAdopted("Only an external order can be adopted; this break is about another thing")
    try:
        # No comparison meanwhile: it would book as others' trades what are ours from now on.
        with alone(row.account):
            read = _ask(row)
            with transaction.atomic():
                return _adopt(row, read, by=by, reason=reason)
    except (BrokerError, Busy, adopting.NotAdoptable) as error:
        raise NotAdopted(f"{error}") from error


def _ask(row: Break) -> _Read | None:
    """None when the order is ours already."""
    if _ours(row) is not None:
        return None
    report = broker_for(row.account).order(row.broker_order_id)
    if report is None:
        raise NotAdopted(
            "The broker no longer knows this order. The break ends with the next comparison."
        )
    adopting.check(report)
    held = figures.ask(row.account).positions.get(report.symbol)
    price = quotes.ask_of(row.account, report.symbol) or (held and held.current_price)
    return _Read(report=report, held=held.qty if held else Decimal(0), price=price or None)


def _ours(row: Break) -> Order | None:
    return Order.objects.filter(
        account_id=row.account_id, broker_order_id=row.broker_order_id
    ).first()


def _adopt(row: Break, read: _Read | None, *, by: User, reason: str) -> Order:
    account = BrokerAccount.lock(row.account_id)
    row.refresh_from_db()
    standing = _ours(row)
    if standing is not None:
        return standing
    assert read is not None, "it was asked for"
    if not row.is_open:
        raise NotAdopted("This break has ended meanwhile; look at it again.")
    _check_fills(account, read.report)
    order = adopting.adopt(
        account,
        read.report,
        price=read.price,
        held=read.held,
        actor=by.get_username(),
        reason=reason,
    )
    failpoint("adoption.taken_in")
    outside.give_back(account, order=order)
    history.end(
        row,
        Break.Status.RESOLVED,
        at=figures.database_now(),
        actor=by.get_username(),
        text=f"Adopted as an order of ours: {reason}",
    )
    return order


def _check_fills(account: BrokerAccount, report: OrderReport) -> None:
    """What filled before the broker's shares were last taken over is in the book already."""
    taken_over = (
        LedgerEntry.objects.filter(account=account, position__symbol=report.symbol)
        .exclude(kind=LedgerEntry.Kind.FILL)
        .exclude(qty=0)
        .aggregate(at=Max("occurred_at"))["at"]
    )
    since = max(filter(None, (taken_over, account.opened_at)), default=None)
    created = report.created_at
    if not report.filled_qty or since is None or (created is not None and created > since):
        return
    later = BrokerActivity.objects.filter(
        account=account, broker_order_id=report.broker_order_id, occurred_at__gt=since
    ).aggregate(shares=Sum(Abs("qty")))["shares"]
    if later == report.filled_qty:
        return
    raise NotAdopted(
        f"{plain(report.filled_qty)} shares of this order have filled, and since it was placed "
        f"our book of {report.symbol} was brought to the broker's figures: they may be in it "
        "already, and would be booked twice. Leave the order, or cancel it in the broker's own app."
    )
