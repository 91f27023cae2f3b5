"""Turns reports into fills: each share is booked once, at the price it changed hands for.

A fill that became known only after the broker's figures were taken over, though it had happened
before, is in them already: it is booked and reversed at once. What a trade brings back that our
book had never let go is booked with what had left. Called only by the door (`orders.lifecycle`),
with the order's row locked.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from django.db.models import BooleanField, ExpressionWrapper, OuterRef, Q, Subquery

from orders.models import Fill, Order
from ordinis.accounts.models import OPERATOR
from ordinis.broker.port import ExecutionReport, OrderReport
from ordinis.numbers import plain
from positions.ledger import PRICE_STEP, book, book_cash, lock_position
from positions.models import CashEntry, LedgerEntry, Position

# How the client order ids of a person's trades begin that bring the broker to what our book says.
RESTORING: Final = "restore-"


def advance(order: Order, report: OrderReport, chain: Sequence[Order]) -> list[Fill]:
    """Books what the report says has filled beyond what is booked; returns those fills.

    Only what exceeds the stored cumulative quantity is new: that of the whole `chain`, since a
    replacement goes on counting where the order that it replaced had come to. The part of it that
    the report's own execution does not explain is inferred from the cumulative average.
    """
    execution = report.execution
    if execution and _is_booked(order, execution):
        execution = None
    furthest = max(chain, key=lambda each: each.filled_qty)
    if any(each.executions_only for each in chain):
        if execution is None:
            return []
        order.filled_qty = furthest.filled_qty
        order.average_fill_price = furthest.average_fill_price
        return [_execute(order, execution, execution.qty)]
    told = max(report.filled_qty, execution.qty if execution else Decimal(0))
    new = told - furthest.filled_qty
    if new <= 0:
        if execution:
            _recognise(chain, execution, execution.qty)
        if told > order.filled_qty:  # booked before, on another order of its chain
            average = report.average_fill_price or furthest.average_fill_price
            order.filled_qty, order.average_fill_price = told, average
        return []
    booked: list[Fill] = []
    order.filled_qty = furthest.filled_qty
    order.average_fill_price = furthest.average_fill_price
    executed = min(execution.qty, new) if execution else Decimal(0)
    if inferred := new - executed:
        price = _inferred_price(order, report, inferred, execution, executed)
        moment = report.updated_at or datetime.now(UTC)
        booked.append(_book(order, qty=inferred, price=price, occurred_at=moment))
    if execution:
        booked.append(_execute(order, execution, executed))
        if execution.qty > executed:  # the rest of it had been inferred before
            _recognise(chain, execution, execution.qty - executed, with_id=False)
    return booked


def _execute(order: Order, execution: ExecutionReport, qty: Decimal) -> Fill:
    return _book(
        order,
        qty=qty,
        price=execution.price,
        occurred_at=execution.occurred_at,
        execution_id=execution.execution_id,
    )


def _is_booked(order: Order, execution: ExecutionReport) -> bool:
    return Fill.objects.filter(
        account_id=order.account_id, execution_id=execution.execution_id
    ).exists()


def _inferred_price(
    order: Order,
    report: OrderReport,
    qty: Decimal,
    execution: ExecutionReport | None,
    executed: Decimal,
) -> Decimal:
    """What `qty` shares must have cost for the broker's cumulative average to be right."""
    if report.average_fill_price is None:
        price = order.limit_price or order.worst_price or (execution and execution.price)
        return price or Decimal(0)
    booked_cost = order.filled_qty * (order.average_fill_price or Decimal(0))
    cost = report.average_fill_price * (order.filled_qty + qty + executed) - booked_cost
    if execution:
        cost -= executed * execution.price
    price = (cost / qty).quantize(PRICE_STEP)
    return price if price > 0 else report.average_fill_price


def _book(
    order: Order,
    *,
    qty: Decimal,
    price: Decimal,
    occurred_at: datetime,
    execution_id: str | None = None,
) -> Fill:
    position = lock_position(order.account_id, order.symbol)
    before, since = copy(position), _since(order, position)
    if since.restores:
        _book_what_it_restores(order, position, qty, occurred_at)
    entry = book(
        position,
        kind=LedgerEntry.Kind.FILL,
        # An inferred fill is named by where it starts in the order's cumulative quantity.
        cause=f"{order.pk}/{execution_id or f'from {plain(order.filled_qty)}'}",
        qty=order.signed * qty,
        price=price,
        occurred_at=occurred_at,
        strategy_id=order.strategy_id,
    )
    _reverse_what_was_taken_over(order, position, entry, before, since)
    fill = Fill.objects.create(
        order=order,
        account_id=order.account_id,
        execution_id=execution_id,
        qty=qty,
        price=price,
        occurred_at=occurred_at,
        inferred=execution_id is None,
        ledger_entry=entry,
    )
    cost = order.filled_qty * (order.average_fill_price or Decimal(0)) + qty * price
    order.filled_qty += qty
    order.average_fill_price = (cost / order.filled_qty).quantize(PRICE_STEP)
    return fill


_SHARES = (LedgerEntry.Kind.OPENING, LedgerEntry.Kind.CORRECTION, LedgerEntry.Kind.SPLIT)
_MONEY = (CashEntry.Kind.OPENING, CashEntry.Kind.CORRECTION)
_RESTORED = "/restored"
# How the causes of entries end that take one fill back.
REVERSED: Final = "/reversed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Since:
    """What happened since an order was made: when the broker's shares of the symbol, and its cash,
    were last taken over (database clock); whether it restores what the book says all the same."""

    shares_at: datetime | None
    money_at: datetime | None
    restores: bool


def _since(order: Order, position: Position) -> _Since:
    """One query. What was taken over before an order was made contains no fill of it."""
    shares = LedgerEntry.objects.filter(
        position=position, kind__in=_SHARES, occurred_at__gt=order.created_at
    ).exclude(Q(qty=0) | Q(cause__endswith=_RESTORED))  # no shares of the broker's
    money = CashEntry.objects.filter(
        account=OuterRef("account"), kind__in=_MONEY, occurred_at__gt=order.created_at
    )
    shares_at, money_at, restores = (
        Order.objects.filter(pk=order.chain)
        .values_list(
            Subquery(shares.order_by("-occurred_at").values("occurred_at")[:1]),
            Subquery(money.order_by("-occurred_at").values("occurred_at")[:1]),
            ExpressionWrapper(
                Q(strategy__name=OPERATOR, client_order_id__startswith=RESTORING), BooleanField()
            ),
        )
        .get()
    )
    return _Since(shares_at=shares_at, money_at=money_at, restores=restores and not shares_at)


def _book_what_it_restores(order: Order, position: Position, qty: Decimal, at: datetime) -> None:
    """The shares that had left (or come) outside, and which this fill brings back: the book never
    let them go, and must not have them twice."""
    book(
        position,
        kind=LedgerEntry.Kind.CORRECTION,
        cause=f"{order.pk}/{position.ledger_version + 2}{_RESTORED}",
        qty=-order.signed * qty,
        price=None,
        occurred_at=at,
        closed_reason=Position.ClosedReason.EXTERNALLY,
    )


def _reverse_what_was_taken_over(
    order: Order, position: Position, fill: LedgerEntry, before: Position, since: _Since
) -> None:
    """Takes a fill back, of the shares and of the cash, where the broker's figures were taken over
    after it had happened. Where they had lagged behind it, the next comparison finds that."""
    cause = f"{order.pk}/{fill.seq}{REVERSED}"
    if since.shares_at is not None and fill.occurred_at < since.shares_at:
        book(
            position,
            kind=LedgerEntry.Kind.CORRECTION,
            cause=cause,
            qty=-fill.qty,
            price=None,  # it earns nothing: what the fill earned stays
            average_price=before.average_price,
            occurred_at=fill.occurred_at,
            closed_reason=Position.ClosedReason(before.closed_reason or "corrected"),
        )
    if since.money_at is not None and fill.occurred_at < since.money_at:
        book_cash(
            order.account,
            kind=CashEntry.Kind.CORRECTION,
            cause=cause,
            amount=(fill.qty * (fill.price or Decimal(0))).quantize(PRICE_STEP),
            occurred_at=fill.occurred_at,
            words="It was in the cash already that was taken over from the broker.",
        )


def _recognise(
    chain: Sequence[Order], execution: ExecutionReport, qty: Decimal, *, with_id: bool = True
) -> None:
    """Marks `qty` shares of inferred fills as this execution. The ledger does not move: the
    shares and their cost were booked when they were inferred."""
    left = qty
    for fill in Fill.objects.filter(order__in=chain, inferred=True).order_by("id"):
        if left <= 0:
            return
        part = min(fill.qty, left)
        left -= part
        if part < fill.qty:
            Fill.objects.filter(pk=fill.pk).update(qty=fill.qty - part)
            fill = Fill(
                order_id=fill.order_id,
                account_id=fill.account_id,
                qty=part,
                price=fill.price,
                ledger_entry_id=fill.ledger_entry_id,
            )
        fill.qty, fill.occurred_at = part, execution.occurred_at
        # An id is unique: where one execution covers several inferred fills, the later ones
        # carry it with a running number.
        fill.execution_id = (
            execution.execution_id
            if with_id and left + part == qty
            else f"{execution.execution_id}+{qty - left:f}"
        )
        fill.inferred = False
        fill.save()
