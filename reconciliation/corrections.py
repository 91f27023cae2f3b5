"""Decides on corrections: applies what a person approves, exactly once.

A correction changes the book, never the market; only a `trade`, which a person proposes, sends an
order. It is decided by someone who did not propose it, on facts read from the broker at that
moment: where they moved, nothing is applied and a new proposal takes its place.
"""

from datetime import datetime, timedelta
from typing import Literal

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import transaction
from django.db.models import Q

from orders import statuses
from orders.models import Fill, Order, OrderHistory
from orders.sync import poll
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.numbers import plain
from reconciliation import history, singly, trades
from reconciliation.applying import apply, close
from reconciliation.facts import ZERO
from reconciliation.history import What
from reconciliation.models import Break, Correction
from reconciliation.proposals import Facts, propose, read_facts, rests_on, same, supersede
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


def may_decide(correction: Correction, user: User) -> bool:
    """Maker and checker are two people, and the checker has the permission; where there is but one
    person, he decides his own by typing the account's name."""
    if not (user.is_active and user.has_perm("reconciliation.decide_correction")):
        return False
    return correction.proposed_by_id != user.pk or _is_alone(user)


def must_type_name(correction: Correction, user: User) -> bool:
    """Whether deciding it would be deciding one's own."""
    return correction.proposed_by_id == user.pk


def _is_alone(user: User) -> bool:
    """Whether nobody else could decide."""
    permission = Permission.objects.filter(
        codename="decide_correction", content_type__app_label="reconciliation"
    )
    others = User.objects.filter(
        Q(is_superuser=True)
        | Q(user_permissions__in=permission)
        | Q(groups__permissions__in=permission),
        is_active=True,
    ).exclude(pk=user.pk)
    return not others.exists()


def decide(
    correction_id: int,
    decision: Decision,
    *,
    user: User,
    comment: str,
    account_name: str | None = None,
) -> Correction:
    """Approves or rejects. Approving reads the broker anew and applies only unmoved facts.

    Raises MayNotDecide; NotDecided, with nothing changed, when it was decided, expired or
    overtaken; ValueError without a comment, or where one's own is decided without the account's
    name.
    """
    comment = comment.strip()
    if not comment:
        raise ValueError("Say why: a comment is required.")
    correction = Correction.objects.select_related("account", "position", "subject").get(
        pk=correction_id
    )
    _check_person(correction, user, account_name)
    _check_waiting(correction, figures.database_now())
    if decision == "approve":
        _check_mode(correction)
    read = _read_again(correction) if decision == "approve" else None
    trades_back = correction.kind == Correction.Kind.TRADE
    with transaction.atomic():
        BrokerAccount.lock(correction.account_id)
        correction = (
            Correction.objects.select_related("account", "position", "subject")
            .select_for_update(no_key=True, of=("self",))
            .get(pk=correction_id)
        )
        _check_waiting(correction, figures.database_now())
        correction.self_decided = must_type_name(correction, user)
        correction.comment = comment
        if read is None:
            close(correction, Status.REJECTED, user)
            history.waits_no_more(Break.objects.filter(pk=correction.subject_id))
            return correction
        _check_mode(correction)  # it may have been changed while the broker was read
        _check_proved(correction)
        facts, position = read_facts(correction.subject, Correction.Kind(correction.kind), read)
        _check_lag(correction, facts)
        unmoved = same(facts, rests_on(correction), Correction.Kind(correction.kind))
        if unmoved and not trades_back:
            apply(correction, position, user)
            return correction
        if unmoved:
            # Committed before it is sent: the same id never makes two orders.
            correction.client_order_id = f"restore-{correction.pk}"
            close(correction, Status.APPLIED, user)
            history.waits_no_more(Break.objects.filter(pk=correction.subject_id))
    if unmoved:
        return trades.carry_out(correction.pk)
    # Outside the transaction that found it out: the refusal below must not undo the new proposal.
    successor = _take_its_place(correction, facts, read)
    raise NotDecided(
        f"The facts moved: this rested on our {plain(correction.local)} against the broker's "
        f"{plain(correction.broker)}; now it is {plain(facts.local)} against "
        f"{plain(facts.broker)}. Nothing was changed.{_advice(correction, facts)}",
        successor,
    )


def _advice(correction: Correction, facts: Facts) -> str:
    if facts.broker - facts.local != correction.difference:
        return ""
    return (
        " Both sides moved alike, by fills of a strategy, and the difference is what it was: "
        "decide the new proposal. If it goes on like this, let the strategy pause meanwhile."
    )


def _take_its_place(correction: Correction, facts: Facts, read: Figures) -> Correction | None:
    row = correction.subject
    # What a split has become, with a trade on top, only the next look can say.
    unknown = facts.agree or correction.kind == Correction.Kind.SPLIT
    if unknown or correction.kind == Correction.Kind.TRADE:
        with transaction.atomic():
            BrokerAccount.lock(row.account_id)
            supersede(row, "The difference is gone." if facts.agree else "The facts moved.")
            history.waits_no_more(Break.objects.filter(pk=row.pk))
    return None if unknown else propose(row, read) or _waiting(correction)


def _check_person(correction: Correction, user: User, account_name: str | None) -> None:
    if not may_decide(correction, user):
        raise MayNotDecide("You may not decide this correction.")
    if must_type_name(correction, user) and account_name != correction.account.name:
        raise ValueError(
            "You proposed this yourself and nobody else may decide it: type the account's name, "
            f"{correction.account.name}, to decide it all the same. It is marked as such."
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
    if mode not in (RiskLimits.ReconcileMode.MANUAL, RiskLimits.ReconcileMode.AUTOMATIC):
        raise NotDecided(
            f"The account's reconcile_mode is {mode}: nothing is corrected in it. "
            "Set it to manual first."
        )


def _check_proved(correction: Correction) -> None:
    """An order whose outcome is unknown may be what the difference is made of; booked now, its
    fill would be booked on top when it is found."""
    orders = Order.objects.filter(
        account_id=correction.account_id, status__in=sorted(statuses.UNPROVED)
    )
    if correction.position is not None:
        orders = orders.filter(symbol=correction.position.symbol)
    unproved = orders.first()
    if unproved is not None:
        raise NotDecided(
            f"The outcome of order {unproved.client_order_id} is not known yet; it may explain "
            "the difference. It is being looked up: try again when it is known."
        )


def _check_lag(correction: Correction, facts: Facts) -> None:
    """For some seconds the broker's positions may not show a fill that we have booked. A difference
    that has stood unchanged for longer than that is no such lag."""
    now, wait = figures.database_now(), timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    if correction.position is None:
        return
    lately = Fill.objects.filter(
        account_id=correction.account_id,
        order__symbol=correction.position.symbol,
        recorded_at__gte=now - wait,
    )
    if not lately.exists():
        return
    row = correction.subject
    changed = (
        row.events.filter(what__in=(What.OPENED, What.REOPENED, What.CHANGED))
        .order_by("-at")
        .values_list("at", flat=True)
        .first()
    )
    stands = changed is not None and changed <= now - 2 * wait
    if stands and facts.broker - facts.local == row.difference:
        return
    raise NotDecided(
        f"A fill of {correction.position.symbol} was booked a moment ago, and the broker's "
        f"positions may not show it yet. Nothing was changed: try again in {wait.seconds} seconds."
    )


def _read_again(correction: Correction) -> Figures:
    """Orders first: a fill that explains the difference is booked before it is judged. The one
    position is asked for by itself, too: lists can leave out what is there."""
    account = correction.account
    try:
        complete = poll(account, source=OrderHistory.Source.RECONCILE)
        read = figures.ask(account)
        alone = (
            singly.shares(broker_for(account), correction.position.symbol)
            if correction.position is not None
            else None
        )
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
    if correction.position is not None and alone is not None:
        listed = read.positions.get(correction.position.symbol)
        if (listed.qty if listed else ZERO) != alone:
            raise NotDecided(
                "The broker's list of positions and its answer for this one do not agree, so "
                "nothing was changed. Try again in a moment."
            )
    return read
