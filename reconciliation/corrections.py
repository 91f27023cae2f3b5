"""Proposes corrections of the book, and applies what a person approves, exactly once.

A correction changes the book, never the market. It is decided by someone who did not propose it,
on facts read from the broker at that moment: where they moved, nothing is applied.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from orders import statuses
from orders.models import Order, OrderHistory
from orders.sync import poll
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from positions.ledger import book, lock_position
from positions.models import LedgerEntry, Position
from reconciliation.models import Break, Correction, Kind
from risk import figures
from risk.figures import Figures
from risk.limits import in_force
from risk.models import RiskLimits

Status = Correction.Status
Decision = Literal["approve", "reject"]


class MayNotDecide(Exception):
    """This person may not decide this correction."""


class NotDecided(Exception):
    """The decision changed nothing; the message says why. `successor` is the proposal that takes
    its place, where there is one."""

    def __init__(self, message: str, successor: Correction | None = None) -> None:
        super().__init__(message)
        self.successor = successor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a correction rests on."""

    local_qty: Decimal
    broker_qty: Decimal
    ledger_version: int


def propose(row: Break, snapshot: Figures, by: User | None = None) -> Correction | None:
    """Proposes to bring the book to the broker's figures; None when that stands or was rejected.

    The same facts are proposed once: what a person rejected comes back only when they move, or
    when a person proposes it again. A proposal whose facts moved is superseded.
    """
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        row.refresh_from_db()  # it may have healed before the lock was ours
        if row.status not in Break.OPEN_STATUSES:
            return None
        position = lock_position(row.account_id, row.symbol)
        held = snapshot.positions.get(row.symbol)
        facts = _Facts(
            local_qty=position.qty,
            broker_qty=held.qty if held else Decimal(0),
            ledger_version=position.ledger_version,
        )
        if facts.local_qty == facts.broker_qty:
            return None
        latest = row.corrections.order_by("-pk").first()
        if latest is not None and _rests_on(latest) == facts:
            settled = (Status.PROPOSED,) if by else (Status.PROPOSED, Status.REJECTED)
            if latest.status in settled:
                return None
        supersede(row, "The facts moved.")
        correction = Correction.objects.create(
            account_id=row.account_id,
            subject=row,
            position=position,
            local_qty=facts.local_qty,
            broker_qty=facts.broker_qty,
            local_average_price=position.average_price,
            broker_average_price=held.average_price if held else None,
            ledger_version=facts.ledger_version,
            evidence=None if held is None else dict(held.raw),
            watermark=snapshot.asked_at,
            proposed_by=by,
            expires_at=snapshot.asked_at + timedelta(hours=settings.CORRECTION_EXPIRES_HOURS),
        )
        Break.objects.filter(pk=row.pk).update(status=Break.Status.CORRECTING)
    return correction


def supersede(row: Break, why: str) -> None:
    """Withdraws the waiting proposal of a break, if there is one."""
    row.corrections.filter(status=Status.PROPOSED).update(status=Status.SUPERSEDED, comment=why)


def expire(now: datetime) -> int:
    """Ends proposals that nobody decided in time; returns how many."""
    late = Correction.objects.filter(status=Status.PROPOSED, expires_at__lte=now)
    count = 0
    for account_id in set(late.order_by().values_list("account_id", flat=True)):
        with transaction.atomic():
            BrokerAccount.lock(account_id)  # as everyone does who touches breaks and corrections
            of_account = late.filter(account_id=account_id)
            subjects = list(of_account.values_list("subject_id", flat=True))
            count += of_account.update(status=Status.EXPIRED, comment="Nobody decided in time.")
            Break.objects.filter(pk__in=subjects, status=Break.Status.CORRECTING).update(
                status=Break.Status.OPEN
            )
    return count


def may_decide(correction: Correction, user: User) -> bool:
    """Maker and checker are two people, and the checker has the permission."""
    return (
        user.is_active
        and user.has_perm("reconciliation.decide_correction")
        and correction.proposed_by_id != user.pk
    )


def decide(correction_id: int, decision: Decision, *, user: User, comment: str) -> Correction:
    """Approves or rejects. Approving reads the broker anew and applies only unmoved facts.

    Raises MayNotDecide; NotDecided, with nothing changed, when it was decided, expired or
    overtaken; ValueError without a comment.
    """
    comment = comment.strip()
    if not comment:
        raise ValueError("Say why: a comment is required.")
    correction = Correction.objects.select_related("account", "position").get(pk=correction_id)
    if not may_decide(correction, user):
        raise MayNotDecide("You may not decide this correction.")
    _check_waiting(correction, figures.database_now())
    if decision == "approve":
        _check_mode(correction)
    snapshot = _read_again(correction) if decision == "approve" else None
    with transaction.atomic():
        BrokerAccount.lock(correction.account_id)
        correction = Correction.objects.select_for_update(no_key=True).get(pk=correction_id)
        _check_waiting(correction, figures.database_now())
        if snapshot is None:
            _close(correction, Status.REJECTED, user, comment)
            Break.objects.filter(pk=correction.subject_id).update(status=Break.Status.OPEN)
            return correction
        _check_proved(correction)
        position = lock_position(correction.account_id, correction.position.symbol)
        held = snapshot.positions.get(position.symbol)
        facts = _Facts(
            local_qty=position.qty,
            broker_qty=held.qty if held else Decimal(0),
            ledger_version=position.ledger_version,
        )
        if facts == _rests_on(correction):
            correction.ledger_entry = _book(correction, position)
            failpoint("correction.booked")
            _close(correction, Status.APPLIED, user, comment)
            correction.subject.end(Break.Status.RESOLVED, figures.database_now())
            return correction
    # Outside the transaction that found it out: the refusal below must not undo the new proposal.
    successor = propose(correction.subject, snapshot) or _waiting(correction)
    if facts.local_qty == facts.broker_qty:
        supersede(correction.subject, "The difference is gone.")
        successor = None
    raise NotDecided(
        f"The facts moved: this rested on our {_text(correction.local_qty)} against the broker's "
        f"{_text(correction.broker_qty)}; now it is {_text(facts.local_qty)} against "
        f"{_text(facts.broker_qty)}. Nothing was changed.",
        successor,
    )


def _rests_on(correction: Correction) -> _Facts:
    return _Facts(
        local_qty=correction.local_qty,
        broker_qty=correction.broker_qty,
        ledger_version=correction.ledger_version,
    )


def _check_waiting(correction: Correction, now: datetime) -> None:
    if correction.status == Status.PROPOSED and correction.expires_at > now:
        return
    why = {
        Status.APPLIED: "It was approved and applied before",
        Status.REJECTED: "It was rejected before",
        Status.SUPERSEDED: "The facts moved after it was proposed",
    }.get(Status(correction.status), "It expired before anyone decided")
    raise NotDecided(f"{why}. Nothing was changed.", _waiting(correction))


def _waiting(correction: Correction) -> Correction | None:
    """The proposal that took this one's place."""
    return (
        Correction.objects.filter(subject_id=correction.subject_id, status=Status.PROPOSED)
        .exclude(pk=correction.pk)
        .first()
    )


def _check_mode(correction: Correction) -> None:
    mode = in_force(correction.account_id).reconcile_mode
    if mode != RiskLimits.ReconcileMode.MANUAL:
        raise NotDecided(
            f"The account's reconcile_mode is {mode}: nothing is corrected in it. "
            "Set it to manual first."
        )


def _check_proved(correction: Correction) -> None:
    """An order whose outcome is unknown may be what the difference is made of; booked now, its
    fill would be booked on top when it is found."""
    unproved = Order.objects.filter(
        account_id=correction.account_id,
        symbol=correction.position.symbol,
        status__in=sorted(statuses.UNPROVED),
    ).first()
    if unproved is not None:
        raise NotDecided(
            f"The outcome of order {unproved.client_order_id} is not known yet; it may explain "
            "the difference. It is being looked up: try again when it is known."
        )


def _read_again(correction: Correction) -> Figures:
    """Orders first: a fill that explains the difference is booked before it is judged."""
    try:
        complete = poll(correction.account, source=OrderHistory.Source.RECONCILE)
        snapshot = figures.ask(correction.account)
    except BrokerError as error:
        raise NotDecided(
            f"The broker could not be read, so nothing was changed: {error.message} "
            "Try again in a moment."
        ) from error
    if not complete:
        raise NotDecided(
            "The broker's orders could not all be read, so nothing was changed. "
            "Try again in a moment."
        )
    return snapshot


def _book(correction: Correction, position: Position) -> LedgerEntry:
    zombie = correction.subject.kind == Kind.ZOMBIE
    return book(
        position,
        kind=LedgerEntry.Kind.CORRECTION,
        cause=f"correction/{correction.pk}",
        qty=correction.difference,
        price=correction.broker_average_price,
        average_price=correction.broker_average_price,
        occurred_at=correction.watermark,
        closed_reason=(
            Position.ClosedReason.EXTERNALLY if zombie else Position.ClosedReason.CORRECTED
        ),
    )


def _close(correction: Correction, status: Status, user: User, comment: str) -> None:
    correction.status, correction.comment = status, comment
    correction.decided_by, correction.decided_at = user, figures.database_now()
    correction.save(update_fields=("status", "comment", "decided_by", "decided_at", "ledger_entry"))


def _text(qty: Decimal) -> str:
    return f"{plain(qty)}"
