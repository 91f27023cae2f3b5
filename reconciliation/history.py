"""The history of breaks: every step of one is a row, written with the step itself.

Called inside the transaction that makes the step, with the account locked.
"""

from datetime import datetime

from django.db.models import Case, QuerySet, Value, When

from ordinis.alerts.models import end_alert
from reconciliation.models import OF_POSITIONS, Break, BreakEvent, Kind

What = BreakEvent.What


def note(
    row: Break, what: BreakEvent.What, *, at: datetime, actor: str = "Ordinis", text: str = ""
) -> BreakEvent:
    """Adds a step to a break's history."""
    return BreakEvent.objects.create(subject=row, what=what, at=at, actor=actor, text=text)


def end(
    row: Break, status: Break.Status, *, at: datetime, actor: str = "Ordinis", text: str = ""
) -> None:
    """Closes a break as healed or resolved, and the alert that it raised."""
    row.status, row.ended_at = status, at
    row.save(update_fields=("status", "ended_at"))
    healed = status == Break.Status.HEALED
    note(row, What.HEALED if healed else What.RESOLVED, at=at, actor=actor, text=text)
    end_alert(row.account_id, code=f"break_{row.kind}", subject=alert_subject(row))
    end_alert(row.account_id, code="break_escalated", subject=alert_subject(row))
    if row.kind == Kind.ORDER_MISSING:  # raised by whoever reads orders, in every mode
        end_alert(row.account_id, code="order_missing", subject=str(row.order_id))


def waits_no_more(breaks: QuerySet[Break]) -> None:
    """A decision is no longer waited for: they are again what they were."""
    breaks.filter(status=Break.Status.CORRECTING).update(
        status=Case(
            When(escalated_at__isnull=False, then=Value(Break.Status.ESCALATED)),
            When(acknowledged_at__isnull=False, then=Value(Break.Status.ACKNOWLEDGED)),
            default=Value(Break.Status.OPEN),
        )
    )


def alert_subject(row: Break) -> str:
    """What a break's alert is about: the symbol of a position, else the break's own subject."""
    return row.symbol if row.kind in OF_POSITIONS else row.subject
