"""What a person must hear of a report: alerts in the door's transaction, and trades taken back.

Changes no status and no fill.
"""

from orders import statuses
from orders.models import Bust, Order
from orders.steps import storable
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.port import OrderReport


def raise_for(order: Order, report: OrderReport, before: str, after: str, booked: bool) -> None:
    """What a person must hear of: each is a sentence that says what was found."""
    found: list[tuple[str, str]] = []
    if report.status == "filled" and after != "filled" and statuses.is_open(after):
        told = f"{report.filled_qty:f} of {order.qty:f}"
        found.append(("filled_short", f"the broker calls it filled, but with {told} shares"))
    if not statuses.is_known(after) and after != before:
        found.append(("unknown_status", f"the broker reports the unknown status {after!r}"))
    if not statuses.is_open(before) and (booked or after != before):
        found.append(("late_report", f"believed {before}, but the broker reports {after}"))
    if after == statuses.REJECTED != before and order.parent_id and order.replaces_id is None:
        what = "was accepted, and then rejected: the position stands without it"
        found.append(("dependent_rejected", what))
    if order.filled_qty > order.qty:
        found.append(("overfill", f"filled {order.filled_qty:f} of {order.qty:f}"))
    for code, what in found:
        raise_alert(
            order.account_id,
            code=code,
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=f"Order {order.client_order_id} ({order.symbol}): {what}.",
        )


def note_bust(order: Order, report: OrderReport) -> None:
    """A trade taken back or corrected is a person's to decide; its order's figures can no longer
    be added up, so that from here on only its single executions count."""
    bust = report.bust
    if bust is None:
        return
    Bust.objects.bulk_create(
        [
            Bust(
                order=order,
                account_id=order.account_id,
                kind=bust.kind,
                execution_id=bust.execution_id,
                previous_execution_id=bust.previous_execution_id,
                qty=bust.qty,
                price=bust.price,
                occurred_at=bust.occurred_at,
                report=storable(report.raw),
            )
        ],
        ignore_conflicts=True,
    )
    Order.objects.filter(pk=order.pk).update(executions_only=True)
    order.executions_only = True
    what = "took a trade of it back" if bust.kind == Bust.Kind.BUST else "corrected a trade of it"
    raise_alert(
        order.account_id,
        code=bust.kind,
        subject=str(order.pk),
        severity=Alert.Severity.CRITICAL,
        message=(
            f"Order {order.client_order_id} ({order.symbol}): the broker {what} "
            f"({bust.previous_execution_id or bust.execution_id}). The book still has it as it "
            "was: compare the position, and approve or reject the correction."
        ),
    )
