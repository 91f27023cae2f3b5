"""Reads orders from the broker and brings them to the door; takes over the book at the start.

An absence is only concluded from a complete list, and then looked up order by order.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum

from django.db import OperationalError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from orders import lifecycle, statuses
from orders.errors import OrderStatusError
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.order_log import about
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.broker.port import Broker, OrderReport, PositionReport
from ordinis.failpoints import failpoint
from positions import broker_view
from positions.ledger import book, book_cash, lock_position
from positions.models import CashEntry, LedgerEntry
from risk import figures

log = logging.getLogger("ordinis.orders")

# So long the successor of an order is looked for that was replaced without us.
_FOLLOWED = timedelta(days=1)


def order_of(account: BrokerAccount, report: OrderReport) -> Order | None:
    """The order that a report is about; None when it is not one of ours."""
    theirs = Q(broker_order_id=report.broker_order_id) | Q(client_order_id=report.client_order_id)
    order = Order.objects.filter(theirs, account=account).first()
    if order is None and report.replaces:
        replaced = Order.objects.filter(account=account, broker_order_id=report.replaces).first()
        order = lifecycle.adopt(replaced, report) if replaced else None
        failpoint("sync.adopted")
    return order


def take_in(account: BrokerAccount, report: OrderReport, source: Source) -> Order | None:
    """Brings a report to its order's door; None when the order is not one of ours."""
    order = order_of(account, report)
    return None if order is None else _observe(order, report, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What a poll read: the broker's open orders, and which of ours it looked up and does not
    know; whether all could be read, and why not. `asked_at` is the database's time of asking,
    `broker_seconds` how long the broker took for the list."""

    orders: tuple[OrderReport, ...]
    missing: frozenset[str]
    complete: bool
    reason: str
    asked_at: datetime
    broker_seconds: float


def poll(account: BrokerAccount, source: Source = Source.POLL) -> bool:
    """Brings every open order up to date; whether all could be read.

    Raises BrokerUnavailable or BrokerRefused when the list can't be read at all.
    """
    return read_orders(account, source).complete


def read_orders(account: BrokerAccount, source: Source = Source.POLL) -> Polled:
    """`poll`, with what was read."""
    broker = broker_for(account)
    asked_at = figures.database_now()
    # Ours first: an order sent after this is not missed for being absent from the list.
    ours = {order.pk: order for order in _open_at_broker(account)}
    began = time.monotonic()
    theirs = broker.open_orders()
    broker_seconds = time.monotonic() - began
    known = _known(account, theirs.items)
    for report in theirs.items:
        order = known.get(report.broker_order_id) or known.get(report.client_order_id)
        if order is None and report.replaces:
            order = order_of(account, report)
        if order is None:
            continue  # not one of ours
        ours.pop(order.pk, None)
        if (report.status, report.filled_qty) != (order.status, order.filled_qty):
            _observe(order, report, source)
    missing: set[str] = set()
    unread = "" if theirs.complete else theirs.reason or "The list of open orders is incomplete."
    for order in ours.values() if theirs.complete else ():
        # Open here, not open there: each is asked for by its id, until one can't be read. Behind
        # a broker that stalls the others would only wait in turn.
        found = _look_up(broker, order, source)
        if found is None:
            unread = f"Order {order.client_order_id} could not be read."
            break
        if found is _MISSING:
            missing.add(order.broker_order_id or "")
    return Polled(
        orders=theirs.items,
        missing=frozenset(missing),
        complete=not unread,
        reason=unread,
        asked_at=asked_at,
        broker_seconds=broker_seconds,
    )


def _known(account: BrokerAccount, reports: Iterable[OrderReport]) -> dict[str, Order]:
    """Our orders among these, by the broker's id where it is known, and else by ours."""
    rows = Order.objects.filter(
        Q(broker_order_id__in=[report.broker_order_id for report in reports])
        | Q(client_order_id__in=[report.client_order_id for report in reports]),
        account=account,
    )
    return {row.broker_order_id or row.client_order_id: row for row in rows}


def _open_at_broker(account: BrokerAccount) -> QuerySet[Order]:
    """Those that are open, and those replaced by something that we do not know yet."""
    lately = datetime.now(UTC) - _FOLLOWED
    known = Order.objects.filter(replaces=OuterRef("pk"), broker_order_id__isnull=False)
    abandoned = Q(~Exists(known), status=statuses.REPLACED, updated_at__gte=lately)
    rows = Order.objects.select_related("account", "strategy")
    return rows.filter(
        ~Q(status__in=sorted(statuses.CLOSED)) | abandoned,
        account=account,
        broker_order_id__isnull=False,
    )


def look_up(order: Order, source: Source = Source.POLL) -> Order:
    """Asks the broker for one order that it has acknowledged. Raises OrderStatusError."""
    try:
        read = _look_up(broker_for(order.account), order, source)
    except BrokerRefused as error:
        raise OrderStatusError("broker_refused", error.message) from error
    if read is None:
        raise OrderStatusError(
            "broker_unavailable",
            f"The broker could not be asked for {order.client_order_id}. Its last known status "
            "stands; ask again in a moment.",
        )
    return Order.objects.select_related("account", "strategy").get(pk=order.pk)


class _LookedUp(Enum):
    FOUND = "found"
    MISSING = "missing"


_FOUND, _MISSING = _LookedUp.FOUND, _LookedUp.MISSING


def _look_up(broker: Broker, order: Order, source: Source) -> _LookedUp | None:
    """None: it could not be asked for."""
    assert order.broker_order_id is not None, "it was acknowledged"
    try:
        with about(order):
            found = broker.order(order.broker_order_id)
    except BrokerUnavailable as error:
        log.warning("order not read", extra={"order": str(order.pk), "error": error.message})
        return None
    if found is None:
        raise_alert(
            account_id=order.account_id,
            code="order_missing",
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"Order {order.client_order_id} ({order.symbol}) is open here, but the broker "
                "no longer knows it. Look it up in the broker's own app."
            ),
        )
        return _MISSING
    _observe(order, found, source)
    if (
        found.replaced_by
        and not order.replacements.filter(broker_order_id=found.replaced_by).exists()
    ):
        _follow(broker, order, found.replaced_by, source)
    return _FOUND


def _follow(broker: Broker, order: Order, successor_id: str, source: Source) -> None:
    """Takes over what replaced an order in the broker's own app: it may have ended already, and
    then no list of open orders names it."""
    try:
        successor = broker.order(successor_id)
    except BrokerUnavailable as error:
        log.warning("successor not read", extra={"order": str(order.pk), "error": error.message})
        return
    if successor is not None:
        take_in(order.account, successor, source)


def _observe(order: Order, report: OrderReport, source: Source) -> Order:
    try:
        return lifecycle.observe(order.pk, report, Origin(source, "broker"))
    except lifecycle.MismatchedReport as mismatch:
        log.error("mismatched report", extra={"order": str(order.pk), "error": str(mismatch)})
    except OperationalError:
        raise  # the database is away: for every order, and for now
    except Exception as error:
        # A report that can't be handled must not hold up the other orders.
        log.exception("report not taken in", extra={"order": str(order.pk)})
        raise_alert(
            order.account_id,
            code="report_not_taken_in",
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"A report on order {order.client_order_id} ({order.symbol}) could not be taken "
                f"in ({type(error).__name__}). Compare the order with the broker's own app."
            ),
        )
    return order


def ensure_open_book(account: BrokerAccount) -> None:
    """Takes over positions and account from the broker before the first order is accepted.

    Does nothing when that was done before. Raises BrokerUnavailable or BrokerRefused.
    """
    if account.opened_at is not None:
        return
    for _ in range(5):
        before = _fingerprint(account)
        read = figures.ask(account)
        if _fingerprint(account) == before:
            break  # nothing moved while the positions were read
    else:
        raise BrokerUnavailable(
            "The account keeps moving while its positions are read; try again in a moment."
        )
    with transaction.atomic():
        locked = BrokerAccount.lock(account.pk)
        if locked.opened_at is None:
            for report in read.positions.values():
                _book_opening(locked, report)
            book_cash(
                locked,
                kind=CashEntry.Kind.OPENING,
                cause="opening",
                amount=read.account.cash,
                occurred_at=read.asked_at,
            )
            locked.opened_at = read.asked_at
            locked.account_number = read.account.account_number
            locked.books_as_of = read.asked_at
            _refuse_a_second_book(locked)
            locked.save(update_fields=("opened_at", "account_number", "books_as_of"))
            log.info(
                "book opened",
                extra={
                    "account": locked.name,
                    "positions": len(read.positions),
                    "equity": f"{read.account.equity:f}",
                    "buying_power": f"{read.account.buying_power:f}",
                },
            )
    broker_view.record(account, read.account, read.positions.values(), read.asked_at)
    account.refresh_from_db()


def _refuse_a_second_book(account: BrokerAccount) -> None:
    """Two books of one broker account would each spend its money and sell its shares."""
    other = (
        BrokerAccount.served()
        .filter(account_number=account.account_number)
        .exclude(Q(pk=account.pk) | Q(account_number=""))
        .first()
    )
    if other is not None:
        raise BrokerRefused(
            f"The broker account {account.account_number} has its book here already, as "
            f"{other.name!r}. Use that account, or start Ordinis with the keys of another one."
        )


def _fingerprint(account: BrokerAccount) -> list[tuple[str, str, Decimal]]:
    orders = broker_for(account).open_orders()
    if not orders.complete:
        raise BrokerUnavailable(f"The broker's orders could not all be read: {orders.reason}")
    return sorted((o.broker_order_id, o.status, o.filled_qty) for o in orders.items)


def _book_opening(account: BrokerAccount, report: PositionReport) -> None:
    if not report.qty:
        return
    book(
        lock_position(account.pk, report.symbol),
        kind=LedgerEntry.Kind.OPENING,
        cause=f"opening/{report.symbol}",
        qty=report.qty,
        price=report.average_price,
        occurred_at=datetime.now(UTC),
    )


def refresh(account: BrokerAccount) -> figures.Figures:
    """Asks the broker for account and positions and keeps them as its side of the book."""
    read = figures.ask(account)
    broker_view.record(account, read.account, read.positions.values(), read.asked_at)
    return read
