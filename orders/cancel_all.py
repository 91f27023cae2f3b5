"""Cancels every open order of an account, or of one symbol of it, and says how each ended.

While it runs no new order is taken. Orders on their way land after the broker's cancel, and waiting
ones would fire: waiting ones are closed, and what lands is asked for again. Nothing is said to be
canceled before its own report says so; what could not be confirmed in time is `pending`, and asked
for until it has ended.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from orders import lifecycle, statuses, sync
from orders.errors import OrderCancellationError
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.order_log import about
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker import order_log
from ordinis.broker.budget import Priority, priority
from ordinis.broker.errors import BrokerError, OrderRefused
from ordinis.broker.port import TERMINAL_STATUSES, CancelReport, OrderReport
from ordinis.failpoints import failpoint

log = logging.getLogger("ordinis.orders")

T = TypeVar("T")
R = TypeVar("R")
_LONGEST = 8.0  # seconds until what is not confirmed is called pending
_BAR = timedelta(seconds=60)  # it falls by itself when its run has died
_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_AT_ONCE = 8
_TAKEN_AT_ONCE = 250
_CLOCKS_DIFFER = timedelta(minutes=1)
_IN_PASSING = frozenset({"pending_cancel", "pending_replace"})


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
    line = order_log.about(account=account.name)
    with line, priority(Priority.CANCEL), _barred(account, symbol):
        failpoint("cancel_all.barred")
        try:
            run = _Run(account, symbol, origin)
            run.ask()
        except BrokerError as error:
            raise OrderCancellationError(
                "broker_unavailable",
                f"The broker could not be asked to cancel: {error.message} Our own open orders "
                "are marked, and asked for again every few seconds until each has ended.",
            ) from error
        failpoint("cancel_all.asked")
        until, pause = time.monotonic() + _LONGEST, _PAUSE
        while not run.is_confirmed() and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    return run.outcomes()


@contextmanager
def _barred(account: BrokerAccount, symbol: str) -> Iterator[None]:
    """Bars new orders until this run and all that run beside it have ended."""
    run = uuid4()
    with transaction.atomic():  # with the lock: whoever is judging just now is stored before
        locked = BrokerAccount.lock(account.pk)
        until = locked.cancelling_until
        others = locked.cancelling_runs if until and until > locked.database_time else []
        same = not others or locked.cancelling_symbol == symbol
        BrokerAccount.objects.filter(pk=account.pk).update(
            cancelling_until=Now() + _BAR,
            cancelling_symbol=symbol if same else "",
            cancelling_runs=[*others, run],
        )
    try:
        yield
    finally:
        with transaction.atomic():
            runs = BrokerAccount.lock(account.pk).cancelling_runs
            left = [other for other in runs if other != run]
            ended = {} if left else {"cancelling_until": None, "cancelling_symbol": ""}
            BrokerAccount.objects.filter(pk=account.pk).update(cancelling_runs=left, **ended)


class _Run:
    """One cancel of all: what is to end, what the broker was asked and refused, what it told."""

    def __init__(self, account: BrokerAccount, symbol: str, origin: Origin) -> None:
        self._account = account
        self._symbol = symbol
        ours = Order.objects.filter(account=account).exclude(status__in=sorted(statuses.CLOSED))
        ours = ours.filter(symbol=symbol) if symbol else ours
        marked = lifecycle.request_cancel(ours.values_list("pk", flat=True), origin)
        self._ours = {order.pk: order for order in marked}
        failpoint("cancel_all.marked")
        self._broker = broker_for(account)
        # By the broker's id: orders that were not placed here, and what was said of all.
        self._theirs: dict[str, OrderReport | None] = {}
        self._listed: dict[str, OrderReport] = {}
        self._asked: Counter[str] = Counter()
        self._refused: dict[str, str] = {}

    def ask(self) -> None:
        """One call for all; single cancels where only one symbol is meant. Raises BrokerError."""
        sent = Order.objects.filter(pk__in=self._ours, acknowledged_at__isnull=False)
        _mark_sent(sent, at=Now())
        try:
            if self._symbol:
                listed = self._broker.open_orders().items
                self._ask_each([it.broker_order_id for it in listed if it.symbol == self._symbol])
            else:
                self._note((it.broker_order_id, _refusal(it)) for it in self._broker.cancel_all())
        except BrokerError:
            _mark_sent(sent, at=None)
            raise

    def is_confirmed(self) -> bool:
        """Whether all have ended, or can't be cancelled, by the broker's own reports."""
        try:
            self._read()
        except BrokerError as error:
            log.warning("not confirmed yet", extra={"error": error.message})
            return False
        # What landed since, and once more what was refused in passing.
        again = [key for key in self._open_ids() if self._is_to_be_asked(key)]
        self._ask_each(again)
        return not again and not any(self._is_awaited(key) for key in self._open_ids())

    def _is_to_be_asked(self, key: str) -> bool:
        if key not in self._listed or self._is_in_passing(key):
            return False
        return self._asked[key] == 0 or (self._asked[key] == 1 and key in self._refused)

    def _is_awaited(self, key: str) -> bool:
        return key not in self._refused or self._is_in_passing(key)

    def _is_in_passing(self, key: str) -> bool:
        """Whether the broker refuses to cancel it only now: it or its replacement is under way."""
        listed = self._listed.get(key)
        if listed is None:
            return False
        return listed.status in _IN_PASSING or listed.replaces in self._listed

    def _ask_each(self, keys: list[str]) -> None:
        ours = Order.objects.filter(account=self._account, broker_order_id__in=keys)
        _mark_sent(ours, at=Now())
        self._note(_side_by_side(self._cancel, keys))

    def _cancel(self, broker_order_id: str) -> tuple[str, str]:
        ours = (it for it in self._ours.values() if it.broker_order_id == broker_order_id)
        order = next(ours, None)
        try:
            with about(order) if order else nullcontext():
                self._broker.cancel(broker_order_id)
        except OrderRefused as refused:
            return broker_order_id, refused.message
        except BrokerError as error:
            log.warning("not asked", extra={"order": broker_order_id, "error": error.message})
        return broker_order_id, ""

    def _note(self, answers: Iterable[tuple[str, str]]) -> None:
        known = {order.broker_order_id for order in self._ours.values()}
        for key, refusal in answers:
            self._asked[key] += 1
            self._refused.pop(key, None)
            if refusal:
                self._refused[key] = refusal
            if key not in known:
                self._theirs.setdefault(key, None)

    def _open(self) -> list[Order]:
        return [order for order in self._ours.values() if order.is_open]

    def _open_ids(self) -> list[str]:
        """By the broker's id; empty for one whose outcome is not known."""
        theirs = [key for key, report in self._theirs.items() if not _has_ended(report)]
        return [*theirs, *(order.broker_order_id or "" for order in self._open())]

    def _read(self) -> None:
        """Brings all up to date: the broker's list of open orders, and a word on each that is not
        in it, from one list where they are many."""
        self._listed = {it.broker_order_id: it for it in self._broker.open_orders().items}
        self._take(self._listed.values())
        if len(gone := self._gone()) > _AT_ONCE:
            since = min(order.created_at for order in gone) - _CLOCKS_DIFFER
            self._take(self._broker.orders_since(since).items)
        self._take(filter(None, _side_by_side(self._find, self._gone())))
        theirs = [key for key, told in self._theirs.items() if not _has_ended(told)]
        others = [key for key in theirs if key not in self._listed]
        self._take(filter(None, _side_by_side(self._broker.order, others)))

    def _gone(self) -> list[Order]:
        return [order for order in self._open() if order.broker_order_id not in self._listed]

    def _find(self, order: Order) -> OrderReport | None:
        if order.broker_order_id is None:
            return self._broker.order_by_client_id(order.client_order_id)
        return self._broker.order(order.broker_order_id)

    def _take(self, reports: Iterable[OrderReport]) -> None:
        """Brings to the door what has ended or landed. What the broker was asked for by an id that
        was not known here may turn out to be ours."""
        # The broker names the second order of a pair as it likes: we know it by the broker's id.
        ours = {
            order.broker_order_id or order.client_order_id: order for order in self._ours.values()
        }
        ends: dict[UUID, OrderReport] = {}
        others: list[OrderReport] = []
        for report in reports:
            key = report.broker_order_id
            order = ours.get(key) or ours.get(report.client_order_id)
            has_ended = report.status in TERMINAL_STATUSES
            if order is not None:
                self._theirs.pop(key, None)  # it was on its way when the cancel was asked for
            if order is None:
                if key in self._theirs:
                    self._theirs[key] = report
                    others += [report] if has_ended else []
            elif order.is_open and (has_ended or order.acknowledged_at is None):
                ends[order.pk] = report
        for part in _parts(ends):
            done = lifecycle.observe_ends(part, Origin(Source.POLL, "broker"))
            others += [report for pk, report in part.items() if pk not in done]
        for report in others:
            taken = sync.take_in(self._account, report, Source.POLL)
            if taken is not None:
                self._ours[taken.pk] = taken
                self._theirs.pop(report.broker_order_id, None)
        rows = Order.objects.select_related("account", "strategy").filter(pk__in=self._ours)
        self._ours = {order.pk: order for order in rows}

    def outcomes(self) -> list[Outcome]:
        return [
            Outcome(
                order=order,
                broker_order_id=order.broker_order_id,
                outcome=self._outcome(order.broker_order_id, order.status, order.filled_qty),
                filled_qty=order.filled_qty,
                detail=_detail(order, self._refused.get(order.broker_order_id or "", "")),
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
            for key, told in self._theirs.items()
        ]

    def _outcome(self, broker_order_id: str | None, status: str, filled: Decimal) -> str:
        if status == "filled":
            return "filled"
        if status in statuses.CLOSED:
            return "partially_filled" if filled else "canceled"
        return "failed" if broker_order_id in self._refused else "pending"


def _detail(order: Order, refusal: str) -> str:
    if order.is_open:
        return refusal or "Not confirmed yet: it may fill. It is asked for until it has ended."
    return "" if order.status in ("canceled", "filled") else f"It ended as {order.status}."


def _refusal(report: CancelReport) -> str:
    return "" if report.accepted else report.message or f"The broker answered {report.status}."


def _has_ended(report: OrderReport | None) -> bool:
    return report is not None and report.status in TERMINAL_STATUSES


def _filled(report: OrderReport | None) -> Decimal:
    return report.filled_qty if report else Decimal(0)


def _mark_sent(orders: QuerySet[Order], *, at: Now | None) -> None:
    with transaction.atomic():  # locked by id: an update alone takes rows as it meets them
        rows = orders.order_by("pk").select_for_update(no_key=True)
        pks = list(rows.values_list("pk", flat=True))
        Order.objects.filter(pk__in=pks).update(cancel_sent_at=at)


def _parts(ends: dict[UUID, OrderReport]) -> Iterator[dict[UUID, OrderReport]]:
    """Not all in one transaction: others wait for its locks."""
    items = list(ends.items())
    for start in range(0, len(items), _TAKEN_AT_ONCE):
        yield dict(items[start : start + _TAKEN_AT_ONCE])


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
