"""Cancels every open order of an account, or of one symbol of it, and says how each ended.

While it runs no new order is taken. Orders on their way land after the broker's cancel, and waiting
ones would fire: waiting ones are closed, and what lands is asked for again. Nothing is said to be
canceled before its own report says so; what could not be confirmed in time is `pending`, and asked
for until it has ended.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import uuid4

from django.db import connection, transaction
from django.db.models.functions import Now

from orders import lifecycle, statuses, sync
from orders.errors import OrderCancellationError
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.budget import Priority, priority
from ordinis.broker.errors import BrokerError, OrderRefused
from ordinis.broker.port import TERMINAL_STATUSES, OrderReport
from ordinis.failpoints import failpoint

T = TypeVar("T")
R = TypeVar("R")
_LONGEST = 8.0  # seconds until what is not confirmed is called pending
_BAR = timedelta(seconds=30)  # it falls by itself when its run has died
_PAUSE = 0.05
_AT_ONCE = 8
# Orders of the last day are read from one list, older ones one by one.
_LISTED = timedelta(days=1)
_CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one order ended: `canceled`, `filled`, `partially_filled` (canceled with fills),
    `failed` (the broker refuses to cancel it) or `pending`. `order` is None for one that was not
    placed here."""

    order: Order | None
    broker_order_id: str | None
    outcome: str
    filled_qty: Decimal
    detail: str


def cancel_all(account: BrokerAccount, origin: Origin, *, symbol: str = "") -> list[Outcome]:
    """Raises OrderCancellationError when the broker could not be asked; the wish is kept for our
    own orders, and tried again until each has ended."""
    with priority(Priority.CANCEL), _barred(account, symbol):
        failpoint("cancel_all.barred")
        run = _Run(account, symbol, origin)
        failpoint("cancel_all.marked")
        until = time.monotonic() + _LONGEST
        try:
            run.ask()
            failpoint("cancel_all.asked")
            while not run.confirm() and time.monotonic() < until:
                time.sleep(_PAUSE)
        except BrokerError as error:
            raise OrderCancellationError(
                "broker_unavailable",
                f"The broker could not be asked to cancel: {error.message} Our own open orders "
                "are marked, and asked for again every few seconds until each has ended.",
            ) from error
    return run.outcomes()


@contextmanager
def _barred(account: BrokerAccount, symbol: str) -> Iterator[None]:
    """Bars new orders until this run ends, or the one that barred them last."""
    run = uuid4()
    with transaction.atomic():  # with the lock: whoever is judging just now is stored before
        BrokerAccount.lock(account.pk)
        BrokerAccount.objects.filter(pk=account.pk).update(
            cancelling_until=Now() + _BAR, cancelling_symbol=symbol, cancelling_run=run
        )
    try:
        yield
    finally:
        BrokerAccount.objects.filter(pk=account.pk, cancelling_run=run).update(
            cancelling_until=None, cancelling_symbol="", cancelling_run=None
        )


class _Run:
    """One cancel of all: what is to end, what the broker refused, what it told."""

    def __init__(self, account: BrokerAccount, symbol: str, origin: Origin) -> None:
        self._account = account
        self._symbol = symbol
        self._broker = broker_for(account)
        ours = Order.objects.filter(account=account).exclude(status__in=sorted(statuses.CLOSED))
        ours = ours.filter(symbol=symbol) if symbol else ours
        marked = lifecycle.request_cancel(ours.values_list("pk", flat=True), origin)
        self._ours = {order.pk: order for order in marked}
        self._foreign: dict[str, OrderReport | None] = {}
        self._refused: dict[str, str] = {}

    def ask(self) -> None:
        """One call for all; single cancels where only one symbol is meant."""
        if self._symbol:
            listed = self._broker.open_orders().items
            wanted = [each.broker_order_id for each in listed if each.symbol == self._symbol]
            answers = _side_by_side(self._cancel, wanted)
        else:
            told = self._broker.cancel_all()
            answers = [(it.broker_order_id, "" if it.accepted else it.message) for it in told]
        self._refused = {key: message for key, message in answers if message}
        asked = [key for key, _ in answers]
        ours = Order.objects.filter(account=self._account, broker_order_id__in=asked)
        ours.update(cancel_sent_at=Now())
        known = set(ours.values_list("broker_order_id", flat=True))
        for key in asked:
            if key not in known:
                self._foreign.setdefault(key, None)

    def _cancel(self, broker_order_id: str) -> tuple[str, str]:
        try:
            self._broker.cancel(broker_order_id)
        except OrderRefused as refused:
            return broker_order_id, refused.message
        return broker_order_id, ""

    def confirm(self) -> bool:
        """Whether all have ended, by the broker's own reports. An order that was on its way when
        the cancel was asked for has landed meanwhile: it is asked for once more."""
        self._read()
        landed = [
            order
            for order in self._open()
            if order.acknowledged_at is not None and order.cancel_sent_at is None
        ]
        if landed:
            self.ask()
        foreign = [key for key, report in self._foreign.items() if not _has_ended(report)]
        unsure = [key for key in foreign if key not in self._refused]
        return not unsure and all(o.broker_order_id in self._refused for o in self._open())

    def _open(self) -> list[Order]:
        return [order for order in self._ours.values() if order.is_open]

    def _read(self) -> None:
        """Brings our orders up to date from one list, and by single look-ups where it is too
        short."""
        lately = datetime.now(UTC) - _LISTED
        since = min((order.created_at for order in self._open()), default=lately)
        reports = self._broker.orders_since(max(since, lately) - _CLOCKS_DIFFER).items
        for report in reports:
            if report.broker_order_id in self._foreign:
                self._foreign[report.broker_order_id] = report
            elif report.status in TERMINAL_STATUSES or self._is_unproved(report):
                sync.take_in(self._account, report, Source.POLL)
        seen = {report.broker_order_id for report in reports}
        others = [key for key in self._foreign if key not in seen]
        self._foreign |= dict(_side_by_side(self._look_up, others))
        _side_by_side(sync.look_up, [o for o in self._open() if _is_unseen(o, seen)])
        rows = Order.objects.select_related("account", "strategy").filter(pk__in=self._ours)
        self._ours = {order.pk: order for order in rows}

    def _is_unproved(self, report: OrderReport) -> bool:
        unproved = {o.client_order_id for o in self._open() if o.acknowledged_at is None}
        return report.client_order_id in unproved

    def _look_up(self, broker_order_id: str) -> tuple[str, OrderReport | None]:
        return broker_order_id, self._broker.order(broker_order_id)

    def outcomes(self) -> list[Outcome]:
        return [
            Outcome(
                order=order,
                broker_order_id=order.broker_order_id,
                outcome=self._outcome(order.broker_order_id, order.status, order.filled_qty),
                filled_qty=order.filled_qty,
                detail=self._refused.get(order.broker_order_id or "", ""),
            )
            for order in self._ours.values()
        ] + [
            Outcome(
                order=None,
                broker_order_id=key,
                outcome=self._outcome(key, told.status if told else "", _filled(told)),
                filled_qty=_filled(told),
                detail=self._refused.get(key, "") or "It was not placed by Ordinis.",
            )
            for key, told in self._foreign.items()
        ]

    def _outcome(self, broker_order_id: str | None, status: str, filled: Decimal) -> str:
        if status == "filled":
            return "filled"
        if status in statuses.CLOSED:
            return "partially_filled" if filled else "canceled"
        return "failed" if broker_order_id in self._refused else "pending"


def _has_ended(report: OrderReport | None) -> bool:
    return report is not None and report.status in TERMINAL_STATUSES


def _filled(report: OrderReport | None) -> Decimal:
    return report.filled_qty if report else Decimal(0)


def _is_unseen(order: Order, seen: set[str]) -> bool:
    return order.broker_order_id is not None and order.broker_order_id not in seen


def _side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Several calls to the broker at once."""

    def one(item: T) -> R:
        try:
            return work(item)
        finally:
            connection.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(copy_context().run, one, item) for item in items]
        return [future.result() for future in futures]
