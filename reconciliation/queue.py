"""The queue of breaks: what people do with them, and what time does when nobody does anything.

Every step is made with the account locked and leaves a row of the break's history with the
person's name. Nothing here books or decides; what has ended only takes comments.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest, Now

from orders.models import Order
from orders.writing_off import is_unknown, write_off
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.broker.errors import BrokerError
from reconciliation import history
from reconciliation.models import Break, BreakEvent, Kind
from risk.figures import database_now

AT_ONCE = 500
LONGEST_COMMENT = 2000

Status, What = Break.Status, BreakEvent.What
# The fact stands in our own tables, or is past: no comparison sees it go.
_SETTLED_BY_PEOPLE = frozenset({Kind.TRADE_BUST, Kind.ORDER_MISSING, Kind.BUYING_POWER})


class NotDone(Exception):
    """Nothing was changed; the message says why, and what to do."""


def assign(ids: Collection[int], *, to: User | None, by: User) -> int:
    """Gives open breaks to a person, or to nobody; says how many changed hands."""
    if to is not None and not to.has_perm("reconciliation.view_break"):  # inactive: never
        raise NotDone(f"{to} may not see breaks; choose somebody who may.")
    with _alone_with(ids):
        rows = list(Break.objects.filter(pk__in=ids, ended_at=None).exclude(assignee=to))
        Break.objects.filter(pk__in=[row.pk for row in rows]).update(assignee=to)
        _note(rows, What.ASSIGNED, by, f"to {to}" if to is not None else "to nobody")
    return len(rows)


def acknowledge(ids: Collection[int], *, by: User, comment: str = "") -> int:
    """Says that somebody knows, and gives open breaks their time anew; says how many. One that
    waits for a decision goes on waiting, and one that was acknowledged already stays as it is."""
    comment = _checked(comment)
    with _alone_with(ids):
        # Whoever escalated after it was acknowledged may be acknowledged again.
        unheard = Q(acknowledged_at=None) | Q(escalated_at__gt=F("acknowledged_at"))
        found = Q(status__in=(Status.OPEN, Status.ESCALATED)) | (
            Q(status=Status.CORRECTING) & unheard
        )
        rows = list(Break.objects.filter(found, pk__in=ids))
        keys = [row.pk for row in rows]
        at = database_now()
        Break.objects.filter(pk__in=keys).update(acknowledged_at=at)
        Break.objects.filter(pk__in=keys).exclude(status=Status.CORRECTING).update(
            status=Status.ACKNOWLEDGED
        )
        _note(rows, What.ACKNOWLEDGED, by, comment, at=at)
    return len(rows)


def comment(row: Break, text: str, *, by: User) -> BreakEvent:
    """Adds what somebody has to say to a break's history, even after its end."""
    text = _required(text)
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        return history.note(
            row, What.COMMENTED, at=database_now(), actor=by.get_username(), text=text
        )


def resolve(row: Break, *, by: User, comment: str) -> None:
    """Ends a break that no comparison heals and no correction settles. An order that the broker
    does not know is asked for once more, and ends with its break."""
    comment = _required(comment)
    lost = row.order if row.kind == Kind.ORDER_MISSING else None
    if lost is not None:
        _check_unknown(lost)
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        row.refresh_from_db()
        if why := why_not_resolved(row):
            raise NotDone(why)
        if lost is not None:
            write_off(lost, actor=by.get_username(), reason=comment)
        history.end(row, Status.RESOLVED, at=database_now(), actor=by.get_username(), text=comment)


def _check_unknown(order: Order) -> None:
    try:
        unknown = is_unknown(order)
    except BrokerError as error:
        raise NotDone(f"The broker could not be asked for the order: {error.message}") from error
    if not unknown:
        raise NotDone(
            "The broker knows this order again: the next comparison closes the break by itself."
        )


def why_not_resolved(row: Break) -> str:
    """Why a person can not simply call it resolved; empty where one can."""
    overfill = row.kind == Kind.ORDER_FILL and row.subject.startswith("overfill/")
    if row.ended_at is not None:
        return f"This break has ended: {row.get_status_display().lower()}."
    if row.kind not in _SETTLED_BY_PEOPLE and not overfill:
        return (
            "This break ends by itself once both sides agree, and a correction is the way to make "
            "them agree. Comment on it or acknowledge it instead."
        )
    if row.status == Status.CORRECTING:
        return "A correction of it waits for a decision. Decide that first."
    return ""


def escalate(now: datetime) -> int:
    """Escalates every open break that has waited longer than its patience, once for each wait;
    says how many. `now` is the database's time."""
    count = 0
    for account_id in sorted(set(_overdue(now).order_by().values_list("account_id", flat=True))):
        with transaction.atomic():
            BrokerAccount.lock(account_id)
            rows = list(_overdue(now).filter(account_id=account_id))  # again, alone with them
            keys = [row.pk for row in rows]
            Break.objects.filter(pk__in=keys).update(escalated_at=now)
            Break.objects.filter(pk__in=keys).exclude(status=Status.CORRECTING).update(
                status=Status.ESCALATED
            )
            BreakEvent.objects.bulk_create(
                BreakEvent(
                    subject=row, what=What.ESCALATED, at=now, actor="Ordinis", text=_late(row)
                )
                for row in rows
            )
            _alert(account_id, rows)
            count += len(rows)
    return count


def _overdue(now: datetime) -> QuerySet[Break]:
    began = BreakEvent.objects.filter(
        subject=OuterRef("pk"), what__in=(What.OPENED, What.REOPENED)
    ).order_by("-at")
    late = Q()
    for severity in Break.Severity:
        late |= Q(severity=severity, waits_since__lte=now - _patience(severity))
    return (
        Break.objects.filter(ended_at=None)
        .annotate(
            # PostgreSQL's GREATEST passes over what is null.
            waits_since=Greatest("first_seen", Subquery(began.values("at")[:1]), "acknowledged_at")
        )
        .filter(late, Q(escalated_at=None) | Q(escalated_at__lt=F("waits_since")))
    )


def _patience(severity: str) -> timedelta:
    if severity == Break.Severity.CRITICAL:
        return timedelta(minutes=settings.BREAK_ESCALATES_CRITICAL_MINUTES)
    return timedelta(minutes=settings.BREAK_ESCALATES_WARNING_MINUTES)


def _late(row: Break) -> str:
    minutes = _patience(row.severity) // timedelta(minutes=1)
    done = "after it was acknowledged, and it still stands" if row.acknowledged_at else "unattended"
    return f"{minutes} minutes {done}."


def _alert(account_id: int, rows: list[Break]) -> None:
    """As `raise_alert` does, for any number at once."""
    code, critical = "break_escalated", Alert.Severity.CRITICAL
    messages = {
        history.alert_subject(row)[:80]: f"{row}: the break has waited too long. {_late(row)}"
        for row in rows
    }
    Alert.objects.bulk_create(
        (
            Alert(
                account_id=account_id,
                code=code,
                subject=subject,
                severity=critical,
                message=message,
                seen_count=0,
            )
            for subject, message in messages.items()
        ),
        ignore_conflicts=True,
    )
    Alert.objects.filter(
        account_id=account_id, code=code, subject__in=list(messages), ended_at=None
    ).update(seen_count=F("seen_count") + 1, last_seen=Now())


@contextmanager
def _alone_with(ids: Collection[int]) -> Iterator[None]:
    """A transaction in which nobody else touches these breaks."""
    if len(ids) > AT_ONCE:
        raise NotDone(f"That are {len(ids)} breaks; choose at most {AT_ONCE} at once.")
    with transaction.atomic():
        accounts = Break.objects.filter(pk__in=ids).order_by().values_list("account_id", flat=True)
        for account_id in sorted(set(accounts)):  # in one order, so that two can not block
            BrokerAccount.lock(account_id)
        yield


def _note(
    rows: list[Break], what: BreakEvent.What, by: User, text: str, *, at: datetime | None = None
) -> None:
    moment = at or database_now()
    BreakEvent.objects.bulk_create(
        BreakEvent(subject=row, what=what, at=moment, actor=by.get_username(), text=text)
        for row in rows
    )


def _checked(text: str) -> str:
    text = text.strip()
    if len(text) > LONGEST_COMMENT:
        raise NotDone(f"A comment has at most {LONGEST_COMMENT} characters; this has {len(text)}.")
    return text


def _required(text: str) -> str:
    if not (text := _checked(text)):
        raise NotDone("Say why: a comment is required.")
    return text
