"""Reads the broker for a comparison: orders first, then fills, then positions and account.

Orders and fills go through the one door on the way, so that what the broker has filled is in the
book before shares are compared. Nothing is concluded here; what could not all be read makes the
whole reading incomplete.
"""

import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, Q

from orders import statuses, sync
from orders.errors import OrderStatusError
from orders.models import Order, OrderHistory
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import (
    AccountReport,
    ActivityReport,
    Listing,
    OrderReport,
    PositionReport,
)
from ordinis.numbers import plain
from positions import broker_view
from reconciliation import causes, outside
from reconciliation.facts import ZERO, Baseline, BrokerOrder, BrokerPosition, Facts
from reconciliation.models import AccountWatch, BrokerActivity, Snapshot
from reconciliation.singly import is_not_offered
from risk.figures import Figures, ask, database_now

# Lists of fills overlap by this much: a fill may be listed a moment after it was made.
_OVERLAP = timedelta(minutes=2)
# Corporate actions of so long ago are still told as an explanation.
EXPLAINS = timedelta(days=3)
# Orders in doubt that one run asks for: the limit of requests is shared with orders.
_LOOK_UPS = 20


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One complete reading: what is compared, and what it rests on."""

    facts: Facts
    figures: Figures
    row: Snapshot
    orders_asked_at: datetime
    # How long the broker took for its lists.
    broker_seconds: float
    # Of a dry run: dollars of trades outside that any other run would have booked.
    unbooked: Decimal = ZERO


@dataclass(frozen=True, kw_only=True)
class _Fills:
    """The broker's latest fills; of a dry run, those outside that are not kept, and their cash."""

    items: tuple[ActivityReport, ...]
    seconds: float
    # False: the broker offers no list of fills, and money can't be followed without.
    known: bool = True
    unrecorded: Sequence[BrokerActivity] = ()
    unbooked: Decimal = ZERO


def take(account: BrokerAccount, *, dry_run: bool = False) -> Taken:
    """Reads everything, and keeps it as a Snapshot. Fills of our own orders are booked on the way.

    A dry run opens no book, and neither notes trades outside nor books their cash; fills of our
    own orders it books all the same: they are no correction. Raises BrokerUnavailable or
    BrokerRefused when it can't all be read; then nothing may be concluded.
    """
    if dry_run and account.opened_at is None:
        raise BrokerUnavailable("The book was not opened yet: run without --dry-run once.")
    sync.ensure_open_book(account)
    polled = sync.read_orders(account, OrderHistory.Source.RECONCILE)
    if not polled.complete:
        raise BrokerUnavailable(f"The broker's orders could not all be read. {polled.reason}")
    if not dry_run:
        causes.note_agreement(account)
    fills = _read_fills(account, dry_run=dry_run)
    began = time.monotonic()
    figures = ask(account)
    seconds = polled.broker_seconds + fills.seconds + time.monotonic() - began
    broker_view.record(account, figures.account, figures.positions.values(), figures.asked_at)
    row = _keep(account, polled.orders, fills.items, figures)
    facts = Facts(
        positions={
            symbol: BrokerPosition(
                qty=held.qty, average_price=held.average_price, price=held.current_price
            )
            for symbol, held in figures.positions.items()
        },
        orders=tuple(_order(report) for report in polled.orders),
        missing=polled.missing,
        cash=figures.account.cash if fills.known else None,
        standing=_standing(figures.account, figures.positions.values(), polled.orders),
        trades=causes.trades(account, unrecorded=fills.unrecorded),
        actions=causes.actions(account, since=figures.asked_at - EXPLAINS),
    )
    return Taken(
        facts=facts,
        figures=figures,
        row=row,
        orders_asked_at=polled.asked_at,
        broker_seconds=seconds,
        unbooked=fills.unbooked,
    )


# --- fills -------------------------------------------------------------------------------------


def _read_fills(account: BrokerAccount, *, dry_run: bool) -> _Fills:
    """Brings fills of ours that orders have not told yet to the door, and notes those that are of
    nobody here. Where not all could be read, what was read stays, and the next run goes on."""
    assert account.opened_at is not None, "the book was opened first"
    watch, _ = AccountWatch.objects.get_or_create(account=account)
    since = max(account.opened_at, (watch.fills_through or account.opened_at) - _OVERLAP)
    began = time.monotonic()
    try:
        listing = broker_for(account).fills_since(since)
    except BrokerUnavailable as error:
        if is_not_offered(error):
            return _Fills(items=(), seconds=time.monotonic() - began, known=False)
        raise
    seconds = time.monotonic() - began
    ours, foreign = _told_apart(account, listing.items)
    for order in ours:
        _look_up(order)
    foreign, in_doubt = _without_unproved(account, foreign)
    fills = _Fills(items=listing.items, seconds=seconds)
    if dry_run:
        rows, cash = outside.unrecorded(account, foreign)
        fills = replace(fills, unrecorded=rows, unbooked=cash)
    else:
        outside.record(account, foreign)
        outside.give_back(account, since=database_now() - EXPLAINS)
    if in_doubt:
        raise BrokerUnavailable(
            f"{in_doubt} more orders with fills may be ours, of those whose outcome is not known "
            "yet; they are looked up next."
        )
    if not dry_run and (listing.complete or listing.cut_off):
        _go_on_from(watch, listing, since)
    if not listing.complete:
        raise BrokerUnavailable(f"The broker's fills could not all be read. {listing.reason}")
    return fills


def _go_on_from(watch: AccountWatch, listing: Listing[ActivityReport], since: datetime) -> None:
    """By the broker's own clock, which may differ from ours: from the newest fill on."""
    newest = max((fill.occurred_at for fill in listing.items if fill.occurred_at), default=None)
    if newest is None:
        return
    newest = min(newest, database_now())  # a time to come would hide what is made until then
    # Never back behind where this reading began.
    through = max(newest, since + _OVERLAP)
    if not listing.complete and newest - _OVERLAP <= since:
        # More within the overlap than is read at once: without it, or it never ended. The last
        # fill's own moment is read again, in case others share it.
        through = newest + _OVERLAP - timedelta(milliseconds=1)
    AccountWatch.objects.filter(pk=watch.pk).update(fills_through=through)


def _told_apart(
    account: BrokerAccount, fills: Iterable[ActivityReport]
) -> tuple[list[Order], list[ActivityReport]]:
    """Orders of ours with fills that are not booked, and fills of no order of ours."""
    filled: dict[str, Decimal] = {}
    for fill in fills:
        if fill.order_id:
            told = fill.cum_qty or ZERO
            filled[fill.order_id] = max(filled.get(fill.order_id, ZERO), told)
    known = {
        order.broker_order_id: order
        for order in Order.objects.select_related("account", "strategy").filter(
            account=account, broker_order_id__in=list(filled)
        )
    }
    behind = [
        order
        for broker_id, order in known.items()
        if broker_id is not None and filled[broker_id] > order.filled_qty
    ]
    return behind, [fill for fill in fills if fill.order_id not in known]


def _look_up(order: Order) -> None:
    try:
        sync.look_up(order, OrderHistory.Source.RECONCILE)
    except OrderStatusError as error:
        raise BrokerUnavailable(f"{error}") from error


def _without_unproved(
    account: BrokerAccount, foreign: list[ActivityReport]
) -> tuple[list[ActivityReport], int]:
    """A fill may be of an order of ours whose broker id we have not learnt yet: its answer was
    lost, it was written off, or it replaced one of ours in the broker's own app. Each such order
    is asked for, so many in one run. Returns the fills that are nobody's here, and how many orders
    are left to ask for."""
    lately = database_now() - timedelta(days=1)
    in_doubt = dict(
        Order.objects.filter(
            Q(status__in=sorted(statuses.UNPROVED))
            | Q(status__in=(statuses.REPLACED, statuses.FAILED), updated_at__gte=lately),
            account=account,
        )
        .order_by()
        .values_list("symbol")
        .annotate(Max("updated_at"))
    )
    doubted = {
        fill.order_id: in_doubt[fill.symbol]
        for fill in foreign
        if fill.symbol in in_doubt and fill.order_id
    }
    if not doubted:
        return foreign, 0
    noted = _noted(account, doubted)
    new = [broker_id for broker_id in doubted if broker_id not in noted]
    # It was looked up before it was noted; since then an order may have come into doubt.
    again = [broker_id for broker_id in noted if noted[broker_id] < doubted[broker_id]]
    broker, ours = broker_for(account), set()
    for broker_id in [*new, *again][:_LOOK_UPS]:
        report = broker.order(broker_id)
        if report is not None and sync.take_in(account, report, OrderHistory.Source.RECONCILE):
            ours.add(broker_id)
    left = set(new[_LOOK_UPS:])
    return [fill for fill in foreign if fill.order_id not in ours | left], len(left)


def _noted(account: BrokerAccount, broker_ids: Iterable[str]) -> dict[str, datetime]:
    """Orders outside with fills that are noted, and since when."""
    rows = BrokerActivity.objects.filter(account=account, broker_order_id__in=list(broker_ids))
    return dict(rows.order_by().values_list("broker_order_id").annotate(Min("recorded_at")))


# --- facts -------------------------------------------------------------------------------------


def _order(report: OrderReport) -> BrokerOrder:
    return BrokerOrder(
        broker_order_id=report.broker_order_id,
        client_order_id=report.client_order_id,
        symbol=report.symbol,
        side=report.side,
        qty=report.qty,
        filled_qty=report.filled_qty,
        status=report.status,
        price=report.limit_price or report.stop_price,
    )


def _standing(
    account: AccountReport, positions: Iterable[PositionReport], orders: Iterable[OrderReport]
) -> Baseline | None:
    """None where the broker does not say by what it multiplies equity."""
    told = account.raw.get("multiplier")
    multiplier = Decimal(str(told)) if str(told or "").isdecimal() else None
    if multiplier is None:
        return None
    held = {position.symbol: position for position in positions}
    gross = sum((abs(each.market_value or ZERO) for each in held.values()), ZERO)
    reserved = sum((_may_cost(order, held) for order in orders), ZERO)
    return Baseline(
        buying_power=account.buying_power,
        equity=account.equity,
        gross=gross,
        reserved=reserved,
        multiplier=multiplier,
    )


def _may_cost(order: OrderReport, held: Mapping[str, PositionReport]) -> Decimal:
    """Roughly what an open order takes of buying power; one that reduces a position takes none."""
    position = held.get(order.symbol)
    if position is not None and (position.qty > 0) != (order.side == "buy"):
        return ZERO
    price = order.limit_price or order.stop_price or (position and position.current_price) or ZERO
    return max((order.qty or ZERO) - order.filled_qty, ZERO) * price


# --- what is kept ------------------------------------------------------------------------------


def _keep(
    account: BrokerAccount,
    orders: tuple[OrderReport, ...],
    fills: tuple[ActivityReport, ...],
    figures: Figures,
) -> Snapshot:
    digest = _digest(orders, fills, figures)
    last = (
        Snapshot.objects.filter(account=account, evidence__isnull=False)
        .only("pk", "digest")
        .first()
    )
    same = last if last is not None and last.digest == digest else None
    return Snapshot.objects.create(
        account=account,
        asked_at=figures.asked_at,
        complete=True,
        orders=len(orders),
        fills=len(fills),
        positions=len(figures.positions),
        digest=digest,
        same_as=same,
        evidence=None if same else _evidence(orders, fills, figures),
    )


def _digest(
    orders: Iterable[OrderReport], fills: Iterable[ActivityReport], figures: Figures
) -> str:
    """Of the facts alone: prices move all day, and change nothing that is compared."""
    content = [
        sorted([o.broker_order_id, o.status, plain(o.filled_qty)] for o in orders),
        sorted(fill.activity_id for fill in fills),
        sorted(
            [
                held.symbol,
                plain(held.qty),
                None if held.average_price is None else plain(held.average_price),
            ]
            for held in figures.positions.values()
        ),
        plain(figures.account.cash),
    ]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _evidence(
    orders: Iterable[OrderReport], fills: Iterable[ActivityReport], figures: Figures
) -> bytes:
    content: dict[str, Any] = {
        "asked_at": figures.asked_at.isoformat(),
        "account": dict(figures.account.raw),
        "positions": [dict(held.raw) for held in figures.positions.values()],
        "orders": [dict(order.raw) for order in orders],
        "fills": [dict(fill.raw) for fill in fills],
    }
    return zlib.compress(json.dumps(content, default=str).encode(), level=1)


def evidence_of(row: Snapshot) -> dict[str, Any] | None:
    """The broker's own bodies; None once they were kept long enough."""
    kept = row.evidence or (row.same_as.evidence if row.same_as else None)
    if not kept:
        return None
    found = json.loads(zlib.decompress(kept))
    assert isinstance(found, dict)
    return found


def forget(now: datetime) -> int:
    """Drops raw evidence that is older than it is to be kept; the digests stay. A correction's
    own stays with it. Returns how many were dropped."""
    oldest = now - timedelta(days=settings.EVIDENCE_DAYS)
    old = Snapshot.objects.filter(asked_at__lt=oldest, evidence__isnull=False)
    newest = Snapshot.objects.filter(evidence__isnull=False).order_by("account", "-asked_at")
    # The newest of each account may still be what later ones point to.
    still = newest.distinct("account").values_list("pk", flat=True)
    return old.exclude(pk__in=list(still)).update(evidence=None)
