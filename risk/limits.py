"""The limits in force, and the one way to change them (console form and `limits` command).

Versions are never edited: a change is a new row, and a loosening that waits for a second person
is the only one whose state moves. All writes hold the account's lock.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, Q, QuerySet
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount, Strategy
from risk.exchange import CalendarUnknown, next_open
from risk.figures import database_now
from risk.limit_values import ACCOUNT_ONLY, KEYS, Limits, as_text, own, resolve, spent, standing
from risk.loosening import loosened
from risk.models import RiskLimits

__all__ = [
    "ACCOUNT_ONLY",
    "KEYS",
    "Assessment",
    "Limits",
    "MayNotDecide",
    "NotDecided",
    "assess",
    "change",
    "decide",
    "holding",
    "in_force",
    "in_force_of_all",
    "may_decide",
    "reassess",
    "to_come",
]

Status = RiskLimits.Status
Starts = Literal["now", "next_session"]
Decision = Literal["approve", "reject"]
# When a temporary change ends: a moment, or a length of time that counts from when it begins.
End = datetime | timedelta | None

_LONGEST: Final = timedelta(days=366)
# The values of those that are words.
_NAMED: Final[dict[str, list[str]]] = {
    "offset_mode": RiskLimits.OffsetMode.values,
    "dependents_activation": RiskLimits.DependentsActivation.values,
    "reconcile_mode": RiskLimits.ReconcileMode.values,
}


class MayNotDecide(Exception):
    """This person may not decide this version."""


class NotDecided(Exception):
    """The decision changed nothing; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a change does: its version as it would be stored, what holds for the owner when it
    starts, without it and with it, and the same for each strategy that it reaches."""

    version: RiskLimits
    before: Limits
    after: Limits
    strategies: Mapping[int, tuple[Limits, Limits]]
    # Keys that it loosens at any moment of its window, for the owner or a strategy of the account.
    loosened: tuple[str, ...]
    waits: bool


def holding() -> QuerySet[RiskLimits]:
    """The versions that hold now, by the database's clock."""
    return RiskLimits.objects.filter(
        Q(ends_at=None) | Q(ends_at__gt=Now()),
        in_use=True,
        status=Status.APPROVED,
        starts_at__lte=Now(),
    ).order_by()


def in_force(account_id: int, strategy_id: int | None = None) -> Limits:
    """What holds for a strategy, or for the account as a whole: one query."""
    owners = Q(strategy=None) if strategy_id is None else Q(strategy=None) | Q(strategy=strategy_id)
    rows = list(holding().filter(owners, account_id=account_id))
    return resolve(own(rows, None), None if strategy_id is None else own(rows, strategy_id))


def in_force_of_all() -> dict[int, Limits]:
    """What holds for each account that has set anything, by its key: one query."""
    rows: dict[int, list[RiskLimits]] = {}
    for row in holding().filter(strategy=None):
        rows.setdefault(row.account_id, []).append(row)
    return {account_id: resolve(own(each, None)) for account_id, each in rows.items()}


def to_come(account_id: int, now: datetime) -> list[RiskLimits]:
    """Versions of an account that wait for a second person, for their start, or for their end."""
    rows = RiskLimits.objects.select_related("strategy", "account").filter(
        ~Q(status=Status.REJECTED), account_id=account_id, in_use=True
    )
    phases = ("Waiting for a second person", "Scheduled", "Temporary")
    return [row for row in rows.order_by("starts_at", "pk") if row.phase(now) in phases]


def assess(
    *,
    account: BrokerAccount,
    strategy: Strategy | None,
    values: Mapping[str, Any],
    starts: Starts = "now",
    ends_at: End = None,
) -> Assessment:
    """What a change would do; stores nothing.

    Raises ValidationError, naming each field, when a value or the window is not allowed.
    """
    now = database_now()
    row = _checked(account, strategy, values)
    row.starts_at, row.ends_at = _window(starts, ends_at, now)
    row.lasts = ends_at if isinstance(ends_at, timedelta) else None
    newest = RiskLimits.objects.filter(account=account, strategy=strategy).aggregate(Max("version"))
    row.version = (newest["version__max"] or 0) + 1
    return _judged(row, _approved(account.pk), now)


def reassess(row: RiskLimits) -> Assessment:
    """What approving a version that waits would do now; stores nothing."""
    now, version = database_now(), copy(row)
    version.starts_at = max(row.starts_at, now)
    if version.lasts is not None:
        version.ends_at = version.starts_at + version.lasts
    return _judged(version, _approved(row.account_id), now)


def change(
    *,
    account: BrokerAccount,
    strategy: Strategy | None,
    values: Mapping[str, Any],
    reason: str,
    actor: str,
    author: User | None = None,
    starts: Starts = "now",
    ends_at: End = None,
) -> RiskLimits:
    """Stores a new version that changes `values`; None empties a value. Where the account asks for
    it, a version that loosens anything is stored as proposed, and holds once `decide` approves it.

    Raises ValidationError, naming each field, when something is not allowed.
    """
    if not reason.strip():
        raise ValidationError({"reason": "Say why: it stays in the history."})
    with transaction.atomic():
        BrokerAccount.lock(account.pk)  # two changes at once get two versions, not one
        row = assess(
            account=account, strategy=strategy, values=values, starts=starts, ends_at=ends_at
        ).version
        row.reason, row.actor, row.author = reason.strip(), actor, author
        row.save()
        _retire(account.pk)
    return row


def may_decide(row: RiskLimits, user: User) -> bool:
    """Maker and checker are two people, and the checker has the permission."""
    return user.is_active and user.has_perm("risk.decide_risklimits") and row.author_id != user.pk


def decide(version_id: int, decision: Decision, *, user: User, comment: str) -> RiskLimits:
    """Approves or rejects a version that waits. One that was to start at once holds from its
    approval on.

    Raises MayNotDecide; NotDecided, with nothing changed, when it was decided before, when its end
    is past, or when one of its limits was changed since; ValueError without a comment.
    """
    comment = comment.strip()
    if not comment:
        raise ValueError("Say why: a comment is required.")
    account_id = RiskLimits.objects.values_list("account_id", flat=True).get(pk=version_id)
    with transaction.atomic():
        BrokerAccount.lock(account_id)
        row = RiskLimits.objects.select_for_update(no_key=True).get(pk=version_id)
        if not may_decide(row, user):
            raise MayNotDecide("You may not decide this version.")
        if row.status != Status.PROPOSED:
            done = "rejected" if row.status == Status.REJECTED else "approved"
            raise NotDecided(f"It is {done} already. Nothing was changed.")
        now = database_now()
        if decision == "approve":
            _check_unmoved(row)
            row.starts_at = max(row.starts_at, now)
            if row.lasts is not None:
                row.ends_at = row.starts_at + row.lasts
            if row.ends_at is not None and row.ends_at <= row.starts_at:
                raise NotDecided(
                    "Its end is past. Nothing was changed: reject it, and propose it again with "
                    "another end."
                )
            row.before = _before(row, _approved(account_id))
            row.status = Status.APPROVED
        else:
            row.status, row.in_use = Status.REJECTED, False
        row.decided_by, row.decided_at, row.decision_comment = user, now, comment
        row.save()
        _retire(account_id)
    return row


def _check_unmoved(row: RiskLimits) -> None:
    """Whoever approves agrees to a difference: it must still be the one that was proposed."""
    moved = (
        RiskLimits.objects.filter(
            Q(version__gt=row.version) | Q(decided_at__gt=row.created_at),
            account=row.account_id,
            strategy=row.strategy_id,
            status=Status.APPROVED,
            changed__overlap=row.changed,
        )
        .exclude(pk=row.pk)
        .order_by("-pk")
        .first()
    )
    if moved is not None:
        both = ", ".join(key for key in row.changed if key in moved.changed)
        raise NotDecided(
            f"Version {moved.version} has changed {both} since this was proposed. Nothing was "
            "changed: reject it, and propose it again."
        )


def _checked(
    account: BrokerAccount, strategy: Strategy | None, values: Mapping[str, Any]
) -> RiskLimits:
    """A version of these values alone, each in the one spelling."""
    if unknown := sorted(set(values) - set(KEYS)):
        raise ValidationError(
            f"{', '.join(unknown)}: not a limit that this version enforces. "
            f"Known: {', '.join(KEYS)}."
        )
    if not values:
        raise ValidationError("Nothing is changed: name at least one limit and its value.")
    if strategy is not None and strategy.account_id != account.pk:
        raise ValidationError(f"{strategy} is not a strategy of the account {account}.")
    if strategy is not None and (misplaced := sorted(set(values) & ACCOUNT_ONLY)):
        raise ValidationError(f"{', '.join(misplaced)} is set for the account only.")
    row = RiskLimits(account=account, strategy=strategy)
    row.changed = [key for key in KEYS if key in values]
    for key, value in values.items():
        if key in _NAMED and value not in (None, "", *_NAMED[key]):
            known = ", ".join(_NAMED[key])
            raise ValidationError({key: f"{value!r} is not a valid choice: choose from {known}."})
        nothing = None if RiskLimits._meta.get_field(key).null else ""
        setattr(row, key, nothing if value is None else value)
    row.full_clean(
        exclude={field.name for field in RiskLimits._meta.fields} - set(values),
        validate_unique=False,
        validate_constraints=False,
    )
    return row


def _window(starts: Starts, end: End, now: datetime) -> tuple[datetime, datetime | None]:
    try:
        start = now if starts == "now" else next_open(now)
    except CalendarUnknown as error:
        raise ValidationError(f"When the next session starts is not known: {error}") from error
    length = end - start if isinstance(end, datetime) else end
    if length is not None and not timedelta(0) < length <= _LONGEST:
        raise ValidationError(
            "A temporary change must end after it starts, and within a year. Give a later end."
            if length <= timedelta(0)
            else "A temporary change ends within a year. Give an earlier end, or none."
        )
    return start, None if length is None else start + length


def _judged(row: RiskLimits, rows: Sequence[RiskLimits], now: datetime) -> Assessment:
    """What the version does among those that are approved, at its start and at each moment of its
    window at which one of them starts or ends: a version may tighten today and loosen tomorrow."""
    row.status = Status.APPROVED
    row.before = _before(row, rows)
    edges = {edge for each in rows for edge in (each.starts_at, each.ends_at) if edge is not None}
    later = {
        edge for edge in edges if row.starts_at < edge and (not row.ends_at or edge < row.ends_at)
    }
    strategies = [row.strategy_id]
    if row.strategy_id is None:
        strategies += Strategy.objects.filter(account=row.account_id).values_list("pk", flat=True)
    found: set[str] = set()
    for moment in later:
        for before, after in _pairs(row, rows, moment, strategies).values():
            found.update(loosened(before, after))
    at_start = _pairs(row, rows, row.starts_at, strategies)
    for before, after in at_start.values():
        found.update(loosened(before, after))
    asks = any(
        resolve(own(standing(rows, moment), None)).loosening_needs_approval
        for moment in (now, row.starts_at)
    )
    waits = asks and bool(found)
    row.status = Status.PROPOSED if waits else Status.APPROVED
    before, after = at_start[row.strategy_id]
    return Assessment(
        version=row,
        before=before,
        after=after,
        strategies={pk: pair for pk, pair in at_start.items() if pk is not None},
        loosened=tuple(key for key in KEYS if key in found),
        waits=waits,
    )


def _pairs(
    row: RiskLimits, rows: Sequence[RiskLimits], moment: datetime, strategies: Sequence[int | None]
) -> dict[int | None, tuple[Limits, Limits]]:
    """What holds at a moment without the version and with it, for each of these owners."""
    without = standing(rows, moment)
    sides = [(own(each, None), each) for each in (without, [*without, row])]
    return {
        pk: (
            resolve(sides[0][0], None if pk is None else own(sides[0][1], pk)),
            resolve(sides[1][0], None if pk is None else own(sides[1][1], pk)),
        )
        for pk in strategies
    }


def _before(row: RiskLimits, rows: Sequence[RiskLimits]) -> dict[str, str]:
    """The owner's own values of the changed keys when the version starts, for the history."""
    values = own(standing(rows, row.starts_at), row.strategy_id)
    return {key: as_text(values.get(key)) for key in row.changed}


def _approved(account_id: int) -> list[RiskLimits]:
    return list(
        RiskLimits.objects.filter(
            account_id=account_id, in_use=True, status=Status.APPROVED
        ).order_by()
    )


def _retire(account_id: int) -> None:
    """Takes what can never matter again off the order path."""
    rows = RiskLimits.objects.filter(account_id=account_id, in_use=True).order_by()
    over = [row.pk for row in spent(rows, database_now())]
    RiskLimits.objects.filter(pk__in=over).update(in_use=False)
