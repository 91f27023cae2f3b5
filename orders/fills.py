"""Turns reports into fills: each share is booked once, at the price it changed hands for.

Called only by the door (`orders.lifecycle`), with the order's row locked.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from orders.models import Fill, Order
from ordinis.broker.port import ExecutionReport, OrderReport
from ordinis.numbers import plain
from positions.ledger import PRICE_STEP, book, lock_position
from positions.models import LedgerEntry


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
