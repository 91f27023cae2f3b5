"""Takes the book over from the broker anew, in an emergency (R10): by a person, who types the
account's name, while trading is halted.

The old book stays in the ledger: each symbol that differs gets one correction. Everything is
changed in one transaction or nothing is, and only where nothing moved since the broker was read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from orders import statuses
from orders.models import Fill, Order, OrderHistory
from orders.sync import poll
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError, BrokerUnavailable
from ordinis.broker.port import OrderReport
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from positions import broker_view
from positions.ledger import PRICE_STEP, book, book_cash
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import history, singly
from reconciliation.models import OF_POSITIONS, Break, Correction, Kind, Rebuild, Suspect
from reconciliation.run import Busy, alone
from risk import figures, trading
from risk.figures import Figures
from risk.states import HALTED

# Dollars by which equity may differ from cash where nothing is held.
_WORTH_NOTHING: Final = Decimal(1)
_LOOK_UPS: Final = 20
_ATTEMPTS: Final = 5
_NAMED: Final = 5  # orders that a refusal names
_ZERO: Final = Decimal(0)
_KINDS: Final = OF_POSITIONS | {Kind.CASH, Kind.MASS}


class NotRebuilt(Exception):
    """Nothing was changed; the message says why and what to do."""


class _Moved(Exception):
    """Something changed between the reading and the transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a symbol becomes: signed shares, dollars a share."""

    symbol: str
    before: Decimal
    after: Decimal
    average_price_before: Decimal | None
    average_price_after: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rebuild would change; cash in dollars. `problem` says why it may not be done now.
    `versions` are the ledgers that it rests on, by symbol."""

    changes: tuple[Change, ...] = ()
    cash_before: Decimal | None = None
    cash_after: Decimal | None = None
    problem: str = ""
    versions: Mapping[str, int]
    read: Figures


def preview(account: BrokerAccount) -> Plan:
    """What a rebuild would change now. Reads only; raises BrokerUnavailable or BrokerRefused."""
    plan, behind = _plan(account)
    problem = _forbidden(account)
    if not problem and behind:
        problem = (
            "Fills are being booked, or the account keeps moving while it is read. Look again in a "
            "moment."
        )
    return replace(plan, problem=problem or _doubt(account, plan))


def rebuild(account: BrokerAccount, *, typed: str, actor: str, reason: str) -> Rebuild:
    """Rebuilds the book. Raises NotRebuilt, with nothing changed."""
    if typed != account.name:
        raise NotRebuilt(f"Type the account's name, {account.name}, to rebuild its book.")
    reason = reason.strip()
    if not reason:
        raise NotRebuilt("Say why: a reason is required.")
    if why := _forbidden(account):
        raise NotRebuilt(why)
    try:
        with alone(account):
            return _rebuilt(account, actor=actor, reason=reason)
    except (BrokerError, Busy) as error:
        raise NotRebuilt(f"Nothing was changed: {error} Try again in a moment.") from error


def _rebuilt(account: BrokerAccount, *, actor: str, reason: str) -> Rebuild:
    for _ in range(_ATTEMPTS):
        if not poll(account, OrderHistory.Source.RECONCILE):
            raise BrokerUnavailable("The broker's orders could not all be read.")
        plan, behind = _plan(account)
        if behind:
            continue
        if why := _doubt(account, plan):
            raise NotRebuilt(f"Nothing was changed. {why}")
        try:
            with transaction.atomic():
                row = _apply(account, plan, actor=actor, reason=reason)
        except _Moved:
            continue
        read = plan.read
        broker_view.record(account, read.account, read.positions.values(), read.asked_at)
        return row
    raise NotRebuilt(
        "The account kept moving while it was read, so nothing was changed. Cancel its open "
        "orders, or try again in a moment."
    )


# --- reading -----------------------------------------------------------------------------------


def _plan(account: BrokerAccount) -> tuple[Plan, bool]:
    """What would change, and whether something moved meanwhile or is not booked yet."""
    before = _open_orders(account)
    ours = _positions(account)
    read = figures.ask(account)
    after = _open_orders(account)
    plan = Plan(
        changes=_changes(ours, read),
        cash_before=_cash(account),
        cash_after=read.account.cash,
        versions=_versions(ours.values()),
        read=read,
    )
    return plan, _fingerprint(before) != _fingerprint(after) or _is_behind(account, after)


def _doubt(account: BrokerAccount, plan: Plan) -> str:
    """Why the broker's answer may not be believed: lists can leave out what is there. The book must
    never be emptied by one that does."""
    told, broker = plan.read.account, broker_for(account)
    tied_up = abs(told.equity - told.cash)
    if not plan.read.positions and tied_up > _WORTH_NOTHING:
        return (
            f"The broker lists no position, but its equity is {tied_up:,.2f} dollars apart from "
            "its cash: the list looks wrong. Look at the account in the broker's own app."
        )
    # What vanishes first; a book that is altogether another is told by the first few.
    doubted = sorted(plan.changes, key=lambda change: (change.after != 0, change.symbol))
    for change in doubted[:_LOOK_UPS]:
        qty = singly.shares(broker, change.symbol)
        if qty is not None and qty != change.after:
            return (
                f"The broker's list of positions and its answer for {change.symbol} alone do not "
                "agree. Look at the account in the broker's own app, and try again in a moment."
            )
    return ""


def _open_orders(account: BrokerAccount) -> tuple[OrderReport, ...]:
    orders = broker_for(account).open_orders()
    if not orders.complete:
        raise BrokerUnavailable(f"The broker's orders could not all be read: {orders.reason}")
    return orders.items


def _fingerprint(orders: Iterable[OrderReport]) -> list[tuple[str, str, Decimal]]:
    return sorted((o.broker_order_id, o.status, o.filled_qty) for o in orders)


def _is_behind(account: BrokerAccount, orders: Iterable[OrderReport]) -> bool:
    """Whether the broker has filled more of an order of ours than is booked."""
    told = {order.broker_order_id: order.filled_qty for order in orders}
    ours = Order.objects.filter(account=account, broker_order_id__in=list(told))
    return any(
        told[broker_id or ""] > filled
        for broker_id, filled in ours.values_list("broker_order_id", "filled_qty")
    )


def _positions(account: BrokerAccount) -> dict[str, Position]:
    return {position.symbol: position for position in Position.objects.filter(account=account)}


def _versions(positions: Iterable[Position]) -> dict[str, int]:
    """Without those that have no ledger: a row may be made for the broker's side alone."""
    return {each.symbol: each.ledger_version for each in positions if each.ledger_version}


def _changes(ours: Mapping[str, Position], read: Figures) -> tuple[Change, ...]:
    found = []
    for symbol in sorted({*ours, *read.positions}):
        position, held = ours.get(symbol), read.positions.get(symbol)
        qty, after = (position.qty if position else _ZERO), (held.qty if held else _ZERO)
        average = position.average_price if position else None
        told = held.average_price if held and after else None
        # One that the broker does not tell changes nothing.
        now = told.quantize(PRICE_STEP) if told is not None else (average if after else None)
        if (qty, average) != (after, now):
            found.append(
                Change(
                    symbol=symbol,
                    before=qty,
                    after=after,
                    average_price_before=average,
                    average_price_after=now,
                )
            )
    return tuple(found)


def _cash(account: BrokerAccount) -> Decimal:
    """Ours, also of a book that has not taken over the broker's cash yet."""
    entries = CashEntry.objects.filter(account=account).aggregate(total=Sum("amount"))["total"]
    flows = Position.objects.filter(account=account).aggregate(total=Sum("cash_flow"))["total"]
    return (entries or _ZERO) + (flows or _ZERO)


def _forbidden(account: BrokerAccount) -> str:
    """Why it may not be done now; empty when it may."""
    if account.opened_at is None:
        return (
            "The book was never opened: it is taken over from the broker with the first "
            "comparison. There is nothing to rebuild."
        )
    if trading.current(account.pk).state != HALTED:
        return f"Halt trading of {account} first: no order may move the account meanwhile."
    unproved = list(
        Order.objects.filter(account=account, status__in=sorted(statuses.UNPROVED))
        .order_by("created_at")
        .values_list("client_order_id", flat=True)[: _NAMED + 1]
    )
    if unproved:
        more = ", …" if len(unproved) > _NAMED else ""
        return (
            f"The outcome of {', '.join(unproved[:_NAMED])}{more} is not known yet: what it filled "
            "would be booked twice. It is being looked up: try again when it is known."
        )
    lag = timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    recently = figures.database_now() - lag
    if lag and Fill.objects.filter(account=account, recorded_at__gt=recently).exists():
        return (
            "Shares changed hands within the last few seconds, and the broker's positions may lag "
            f"behind. Try again in {lag.total_seconds():.0f} s."
        )
    return ""


# --- the transaction ---------------------------------------------------------------------------


def _apply(account: BrokerAccount, plan: Plan, *, actor: str, reason: str) -> Rebuild:
    """Raises _Moved when the ledger is not the one that the plan rests on."""
    locked = BrokerAccount.lock(account.pk)
    if why := _forbidden(locked):
        raise NotRebuilt(why)
    positions = _lock(locked, [change.symbol for change in plan.changes])
    if _versions(positions.values()) != plan.versions:
        raise _Moved
    asked_at = plan.read.asked_at
    cash = _cash(locked)
    if cash != plan.cash_before:
        raise _Moved
    row = Rebuild.objects.create(
        account=locked,
        actor=actor,
        reason=reason,
        changes=[_told(change) for change in plan.changes],
        cash_before=plan.cash_before,
        cash_after=plan.cash_after,
    )
    for change in plan.changes:
        book(
            positions[change.symbol],
            kind=LedgerEntry.Kind.CORRECTION,
            cause=f"rebuild/{row.pk}/{change.symbol}",
            qty=change.after - change.before,
            price=None,  # nobody knows what it changed hands for
            average_price=change.average_price_after,
            occurred_at=asked_at,
            closed_reason=Position.ClosedReason.CORRECTED,
        )
    failpoint("rebuild.booked")
    if plan.cash_after is not None and plan.cash_after != cash:
        book_cash(
            locked,
            kind=CashEntry.Kind.CORRECTION,
            cause=f"rebuild/{row.pk}",
            amount=plan.cash_after - cash,
            occurred_at=asked_at,
            words=f"Rebuilt from the broker by {actor}: {reason}",
        )
    _settle(locked, row)
    locked.books_as_of = asked_at
    locked.save(update_fields=("books_as_of",))
    failpoint("rebuild.before_commit")
    return row


def _lock(account: BrokerAccount, symbols: Iterable[str]) -> dict[str, Position]:
    """All positions of the account, those of `symbols` made where missing, in symbol order."""
    missing = [Position(account=account, symbol=symbol) for symbol in sorted(symbols)]
    Position.objects.bulk_create(missing, ignore_conflicts=True)
    rows = Position.objects.filter(account=account).order_by("symbol")
    return {position.symbol: position for position in rows.select_for_update(no_key=True)}


def _told(change: Change) -> dict[str, Any]:
    averages = (change.average_price_before, change.average_price_after)
    before, after = (None if each is None else plain(each) for each in averages)
    return {
        "symbol": change.symbol,
        "before": plain(change.before),
        "after": plain(change.after),
        "average_price_before": before,
        "average_price_after": after,
    }


def _settle(account: BrokerAccount, row: Rebuild) -> None:
    """What rested on the old book is over."""
    Correction.objects.filter(account=account, status=Correction.Status.PROPOSED).update(
        status=Correction.Status.SUPERSEDED, comment=f"The book was rebuilt by {row.actor}."
    )
    Suspect.objects.filter(account=account).delete()
    now = figures.database_now()
    for each in Break.objects.filter(account=account, kind__in=sorted(_KINDS), ended_at=None):
        history.end(
            each,
            Break.Status.RESOLVED,
            at=now,
            actor=row.actor,
            text=f"The book was rebuilt from the broker: {row.reason}",
        )
