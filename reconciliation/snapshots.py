"""Reads the broker for a comparison: orders first, then fills, then positions and account.

Orders and fills go through the one door on the way, so that what the broker has filled is in the
book before shares are compared. Nothing is concluded here; what could not all be read makes the
whole reading incomplete.
"""

import hashlib
import json
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db.models import Q

from orders import statuses, sync
from orders.errors import OrderStatusError
from orders.models import Order, OrderHistory
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import AccountReport, ActivityReport, OrderReport, PositionReport
from ordinis.numbers import plain
from positions import broker_view
from reconciliation import outside
from reconciliation.facts import ZERO, Baseline, BrokerOrder, BrokerPosition, Facts
from reconciliation.models import AccountWatch, Snapshot
from risk.figures import Figures, ask, database_now

# Lists of fills overlap by this much: a fill may be listed a moment after it was made.
_OVERLAP = timedelta(minutes=2)
# Outside trades of so long ago are still told as an explanation.
EXPLAINS = timedelta(days=3)
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


def take(account: BrokerAccount) -> Taken:
    """Reads everything, and keeps it as a Snapshot.

    Raises BrokerUnavailable or BrokerRefused when it can't all be read; then nothing may be
    concluded.
    """
    sync.ensure_open_book(account)
    polled = sync.read_orders(account, OrderHistory.Source.RECONCILE)
    if not polled.complete:
        raise BrokerUnavailable(f"The broker's orders could not all be read. {polled.reason}")
    fills, fills_seconds = _read_fills(account)
    began = time.monotonic()
    figures = ask(account)
    seconds = polled.broker_seconds + fills_seconds + time.monotonic() - began
    broker_view.record(account, figures.account, figures.positions.values(), figures.asked_at)
    row = _keep(account, polled.orders, fills, figures)
    AccountWatch.objects.filter(account=account).update(fills_through=polled.asked_at)
    facts = Facts(
        positions={
            symbol: BrokerPosition(
                qty=held.qty, average_price=held.average_price, price=held.current_price
            )
            for symbol, held in figures.positions.items()
        },
        orders=tuple(_order(report) for report in polled.orders),
        missing=polled.missing,
        cash=figures.account.cash,
        standing=_standing(figures.account, figures.positions.values(), polled.orders),
        trades=outside.trades(account, since=figures.asked_at - EXPLAINS),
        actions=outside.actions(account, since=figures.asked_at - EXPLAINS),
    )
    return Taken(
        facts=facts,
        figures=figures,
        row=row,
        orders_asked_at=polled.asked_at,
        broker_seconds=seconds,
    )


# --- fills -------------------------------------------------------------------------------------


def _read_fills(account: BrokerAccount) -> tuple[tuple[ActivityReport, ...], float]:
    """Brings fills of ours that orders have not told yet to the door, and notes those that are of
    nobody here. Returns all, and how long the broker took for them."""
    assert account.opened_at is not None, "the book was opened first"
    watch, _ = AccountWatch.objects.get_or_create(account=account)
    since = max(account.opened_at, (watch.fills_through or account.opened_at) - _OVERLAP)
    began = time.monotonic()
    listing = broker_for(account).fills_since(since)
    seconds = time.monotonic() - began
    if not listing.complete:
        raise BrokerUnavailable(f"The broker's fills could not all be read. {listing.reason}")
    ours, foreign = _told_apart(account, listing.items)
    for order in ours:
        _look_up(order)
    foreign = _without_unproved(account, foreign)
    outside.record(account, foreign)
    outside.give_back(account, since=database_now() - EXPLAINS)
    return listing.items, seconds


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
) -> list[ActivityReport]:
    """A fill may be of an order of ours whose broker id we have not learnt yet: its answer was
    lost, it was written off, or it replaced one of ours in the broker's own app. Each such order
    is asked for."""
    lately = database_now() - timedelta(days=1)
    in_doubt = set(
        Order.objects.filter(
            Q(status__in=sorted(statuses.UNPROVED))
            | Q(status__in=(statuses.REPLACED, statuses.FAILED), updated_at__gte=lately),
            account=account,
        ).values_list("symbol", flat=True)
    )
    doubted = {fill.order_id for fill in foreign if fill.symbol in in_doubt and fill.order_id}
    if not doubted:
        return foreign
    if len(doubted) > _LOOK_UPS:
        raise BrokerUnavailable(
            f"{len(doubted)} fills may be of orders whose outcome is not known yet; "
            "they are looked up first."
        )
    broker, ours = broker_for(account), set()
    for broker_id in doubted:
        report = broker.order(broker_id)
        if report is not None and sync.take_in(account, report, OrderHistory.Source.RECONCILE):
            ours.add(broker_id)
    return [fill for fill in foreign if fill.order_id not in ours]


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
