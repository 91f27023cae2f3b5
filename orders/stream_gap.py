"""Closes the gap that a broken connection leaves in the stream.

By the broker's own history of events where it has a usable one; else from the open orders, each
looked up where it is missing, and from the fills since the last event seen. Never concludes that
nothing was missed from a question that was not fully answered.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

from orders import statuses, stream_store
from orders.models import Order, OrderHistory
from orders.sync import ensure_open_book, poll, take_in
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_events import EventHistory, NotReplayed, Seen
from ordinis.broker.alpaca_stream import Frame
from ordinis.broker.errors import BrokerUnavailable

log = logging.getLogger("ordinis.stream")

# An activity may be listed a little after its event was sent.
_OVERLAP = timedelta(seconds=60)
# No event comes later than this after it happened: one that does was missed, not late.
_LATENESS = 5.0
_UNKNOWN = Decimal("Infinity")  # how much of an order had filled, where the broker leaves it out


class Gap:
    """Whether something may be missing before what is stored now. Shared by threads.

    Each connection opens it, and only a closing that began after the newest connection closes it:
    the lock keeps a message of a later connection from being settled by an earlier closing.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._opened = 0
        self._closed = 0
        self._since = self._connected = 0.0
        self._surely_new: str | None = None

    @property
    def is_closed(self) -> bool:
        return self._opened == self._closed

    def open(self) -> None:
        with self._changed:
            self._connected = time.monotonic()
            if self.is_closed:
                self._since = self._connected
            self._opened += 1
            self._surely_new = None
            self._changed.notify_all()

    @contextmanager
    def storing(self, first: str | None) -> Iterator[bool]:
        """While messages are stored: whether the gap is open. `first` is the first one's id."""
        with self._changed:
            if self._surely_new is None and time.monotonic() - self._connected >= _LATENESS:
                self._surely_new = first
            yield not self.is_closed

    def wait_open(self, seconds: float) -> int | None:
        """The number of the open gap; None when there is none in time."""
        with self._changed:
            opened = self._changed.wait_for(lambda: not self.is_closed, seconds)
            return self._opened if opened else None

    def lets_pass(self, seconds: float, patience: float) -> bool:
        """Waits for it to be closed; True as well once it has been open for `patience`, however
        often it was opened anew since."""
        with self._changed:
            closed = self._changed.wait_for(lambda: self.is_closed, seconds)
            return closed or time.monotonic() - self._since > patience

    def close(self, number: int, settle: Callable[[], None]) -> bool:
        """Whether the gap of this number was still the newest, and is closed and settled now."""
        with self._changed:
            if number != self._opened:
                return False
            settle()
            self._closed = number
            self._changed.notify_all()
            return True

    def is_reached_by(self, event_id: str | None) -> bool:
        """Whether this event is no older than one that surely happened on this connection: the
        first to come live may be a late one from before it."""
        new = self._surely_new
        return new is not None and event_id is not None and event_id >= new


def close(account: BrokerAccount, gap: Gap, number: int, history: EventHistory) -> bool:
    """Fetches what may have been missed; whether the gap is closed with it.

    Raises BrokerError when it could not be fetched.
    """
    ensure_open_book(account)
    if _replayed(account, gap, history):
        how = "by the broker's event history"
    else:
        _ask(account)
        how = "from orders and fills"
    closed = gap.close(number, lambda: stream_store.settle(account.pk))
    if closed:
        log.info("the gap in the stream is closed %s", how, extra={"account": account.name})
    return closed


def _replayed(account: BrokerAccount, gap: Gap, history: EventHistory) -> bool:
    cursor = stream_store.cursor(account.pk)
    if cursor is None or not history.supported:
        return False
    seen = Seen(known=False, reached=False)

    def take(frames: list[Frame]) -> Seen:
        nonlocal seen
        ids = [stream_store.event_id_of(frame) for frame in frames]
        stream_store.store(account.pk, frames, after_gap=True)
        seen = Seen(
            known=seen.known or cursor.known_id in ids,
            reached=seen.reached or any(gap.is_reached_by(event_id) for event_id in ids),
        )
        return seen

    try:
        history.replay(cursor.since_id, take)
    except NotReplayed as reason:
        log.info("the event history closed no gap: %s", reason, extra={"account": account.name})
        return False
    return True


def _ask(account: BrokerAccount) -> None:
    if not poll(account, source=OrderHistory.Source.STREAM):
        raise BrokerUnavailable("The broker's open orders could not all be read.")
    since = stream_store.last_event_at(account.pk) or account.opened_at
    assert since is not None, "the book is open"
    broker = broker_for(account)
    fills = broker.fills_since(since - _OVERLAP)
    # A fill of an order that we believe closed is not among the open ones.
    told: dict[str, Decimal] = {}
    for fill in fills.items:
        if fill.order_id is not None:
            total = _UNKNOWN if fill.cum_qty is None else fill.cum_qty
            told[fill.order_id] = max(told.get(fill.order_id, total), total)
    for order_id in _behind(account, told):
        report = broker.order(order_id)
        if report is not None:
            take_in(account, report, OrderHistory.Source.STREAM)
    if not fills.complete:
        raise BrokerUnavailable(f"The broker's fills could not all be read: {fills.reason}")


def _behind(account: BrokerAccount, told: dict[str, Decimal]) -> list[str]:
    """The orders whose fills the book does not have yet. One that is not known by the broker's
    id may still be ours while we have some whose outcome is unproved."""
    booked = dict(
        Order.objects.filter(account=account, broker_order_id__in=told).values_list(
            "broker_order_id", "filled_qty"
        )
    )
    unproved = Order.objects.filter(
        account=account,
        broker_order_id=None,
        status__in=sorted(statuses.UNPROVED | {statuses.FAILED}),
    ).exists()
    return [
        order_id
        for order_id, total in told.items()
        if (booked[order_id] < total if order_id in booked else unproved)
    ]
