"""Proposes corrections, and applies what a person approves or the limits allow, exactly once.

A correction changes the book, never the market; only a `trade`, which a person proposes, sends an
order. It is decided by someone who did not propose it, on facts read from the broker at that
moment: where they moved, nothing is applied and a new proposal takes its place.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

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
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from positions.ledger import book, book_cash, cash_of, lock_position
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import history
from reconciliation.facts import ZERO, Found
from reconciliation.history import What
from reconciliation.models import Break, Correction, Kind, Snapshot
from risk import figures
from risk.figures import Figures
from risk.limit_values import Limits, as_text
from risk.limits import in_force
from risk.models import RiskLimits

Status = Correction.Status
Decision = Literal["approve", "reject"]

# What a break of a kind is corrected by; the others have nothing in the book to correct.
OF_KIND = {
    Kind.ZOMBIE: Correction.Kind.POSITION,
    Kind.ORPHAN: Correction.Kind.POSITION,
    Kind.QUANTITY: Correction.Kind.POSITION,
    Kind.SIDE: Correction.Kind.POSITION,
    Kind.SPLIT: Correction.Kind.SPLIT,
    Kind.AVERAGE_PRICE: Correction.Kind.AVERAGE_PRICE,
    Kind.CASH: Correction.Kind.CASH,
}
# An orphan, a side that flipped and a split are never small: a person looks.
_BY_ITSELF = frozenset({Kind.ZOMBIE, Kind.QUANTITY, Kind.AVERAGE_PRICE})
_PLACES = Decimal("0.0001")
# Brokers round the cash of each fill.
_CENTS = Decimal("0.1")
# A position that drifts again so soon has a cause, which a correction would only hide.
_NOT_AGAIN_WITHIN = timedelta(hours=1)


class MayNotDecide(Exception):
    """This person may not decide this correction."""


class NotDecided(Exception):
    """The decision changed nothing; the message says why. `successor` is the proposal that takes
    its place, where there is one."""

    def __init__(self, message: str, successor: Correction | None = None) -> None:
        super().__init__(message)
        self.successor = successor


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a correction rests on."""

    local: Decimal
    broker: Decimal
    local_average_price: Decimal | None = None
    broker_average_price: Decimal | None = None
    ledger_version: int = 0

    @property
    def agree(self) -> bool:
        return self.local == self.broker


# --- proposing ---------------------------------------------------------------------------------


def propose(
    row: Break,
    read: Figures,
    by: User | None = None,
    reason: str = "",
    *,
    item: Found | None = None,
    snapshot: Snapshot | None = None,
    limits: Limits | None = None,
) -> Correction | None:
    """Proposes to bring the book to the broker's figures; None when nothing is to be corrected, or
    when that stands already or was rejected.

    The same facts are proposed once: what a person rejected comes back only when they move, or
    when a person proposes it again. A proposal whose facts moved is superseded.
    """
    kind = OF_KIND.get(Kind(row.kind))
    if kind is None:
        return None
    limits = limits or in_force(row.account_id)
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        row.refresh_from_db(fields=("status", "ended_at"))  # it may have healed before the lock
        if not row.is_open:
            return None
        facts, position = read_facts(row, kind, read)
        if not _is_apart(kind, facts):
            return None
        latest = row.corrections.order_by("-pk").first()
        if latest is not None and latest.kind == kind and _same(facts, _rests_on(latest), kind):
            settled = (Status.PROPOSED,) if by else (Status.PROPOSED, Status.REJECTED)
            if latest.status in settled:
                _explain(latest, item)
                return None
        if latest is not None and latest.status == Status.PROPOSED and _is_a_persons(latest, by):
            return None
        supersede(row, "The facts moved.")
        return make(
            row,
            kind,
            facts,
            read,
            position=position,
            price=item.trade_price if item else None,
            value=_value(kind, facts, row, read),
            # A difference that nobody has looked at yet has no explanation.
            explanation=row.explanation if item or _is_that_of(row, facts) else None,
            snapshot=snapshot,
            limits=limits,
            by=by,
            reason=reason,
        )


def _explain(latest: Correction, item: Found | None) -> None:
    """Adds what a look has found to a proposal that was made without one: of the same facts, when
    another was refused because they moved."""
    if item is None or latest.status != Status.PROPOSED:
        return
    told = None if item.explanation is None else dict(item.explanation)
    value = None if item.value is None else item.value.quantize(_PLACES)
    if (latest.price, latest.explanation) == (item.trade_price, told):
        return
    latest.price, latest.explanation, latest.value = item.trade_price, told, value
    latest.save(update_fields=("price", "explanation", "value"))


def _is_that_of(row: Break, facts: Facts) -> bool:
    return row.difference == facts.broker - facts.local


def make(
    row: Break,
    kind: Correction.Kind,
    facts: Facts,
    read: Figures,
    *,
    position: Position | None,
    limits: Limits,
    value: Decimal | None,
    explanation: Mapping[str, Any] | None = None,
    price: Decimal | None = None,
    snapshot: Snapshot | None = None,
    by: User | None = None,
    reason: str = "",
) -> Correction:
    """Stores a proposal with all that it rests on, and notes it at its break. The account is
    locked, and no other proposal of the break waits."""
    held = read.positions.get(row.symbol)
    correction = Correction.objects.create(
        account_id=row.account_id,
        subject=row,
        kind=kind,
        position=position,
        local=facts.local,
        broker=facts.broker,
        local_average_price=facts.local_average_price,
        broker_average_price=facts.broker_average_price,
        ledger_version=facts.ledger_version,
        price=price,
        value=value,
        limits={name: as_text(getattr(limits, name)) for name in _LIMITS},
        explanation=None if explanation is None else dict(explanation),
        snapshot=snapshot,
        evidence=None if held is None else dict(held.raw),
        watermark=read.asked_at,
        proposed_by=by,
        reason=reason,
        expires_at=read.asked_at + timedelta(hours=settings.CORRECTION_EXPIRES_HOURS),
    )
    row.status = Break.Status.CORRECTING
    Break.objects.filter(pk=row.pk).update(status=row.status)
    if by is not None or not _said_before(correction):
        words = reason or f"{correction}"
        history.note(row, What.PROPOSED, at=read.asked_at, actor=correction.actor, text=words)
    return correction


def _said_before(correction: Correction) -> bool:
    """Whether it takes the place of one for as many shares: both sides of a symbol that trades
    move together, all day."""
    last = (
        Correction.objects.filter(subject=correction.subject_id, status=Status.SUPERSEDED)
        .exclude(pk=correction.pk)
        .order_by("-pk")
        .first()
    )
    return last is not None and (last.kind, last.difference) == (
        correction.kind,
        correction.difference,
    )


_LIMITS = ("reconcile_mode", "auto_correct_max_value", "auto_correct_max_qty")


def read_facts(row: Break, kind: Correction.Kind, read: Figures) -> tuple[Facts, Position | None]:
    """Ours, locked, beside what the broker just said."""
    if kind == Correction.Kind.CASH:
        ours = cash_of(row.account_id) or ZERO
        return Facts(local=ours, broker=read.account.cash), None
    position = lock_position(row.account_id, row.symbol)
    held = read.positions.get(row.symbol)
    facts = Facts(
        local=position.qty,
        broker=held.qty if held else ZERO,
        local_average_price=position.average_price,
        broker_average_price=held.average_price if held else None,
        ledger_version=position.ledger_version,
    )
    return facts, position


def _is_apart(kind: Correction.Kind, facts: Facts) -> bool:
    if kind == Correction.Kind.AVERAGE_PRICE:
        return facts.agree and facts.local_average_price != facts.broker_average_price
    return not facts.agree


def _is_a_persons(latest: Correction, by: User | None) -> bool:
    """A trade that a person proposed is not pushed aside by Ordinis' own next look."""
    return by is None and latest.kind == Correction.Kind.TRADE


def _value(kind: Correction.Kind, facts: Facts, row: Break, read: Figures) -> Decimal | None:
    """In dollars, of these very facts."""
    if kind == Correction.Kind.AVERAGE_PRICE:
        return row.value
    apart = abs(facts.broker - facts.local)
    if kind == Correction.Kind.CASH:
        return apart.quantize(_PLACES)
    held = read.positions.get(row.symbol)
    if held is not None and held.current_price:
        return (apart * held.current_price).quantize(_PLACES)
    if row.value is None or not row.difference:
        return row.value
    return (apart * row.value / abs(row.difference)).quantize(_PLACES)


def rejected(rows: Collection[Break]) -> set[int]:
    """Those of which a person has rejected the latest proposal, on these very facts: one query."""
    latest = (
        Correction.objects.filter(subject__in=[row.pk for row in rows])
        .order_by("subject_id", "-pk")
        .distinct("subject_id")
    )
    facts = {row.pk: (row.local, row.broker) for row in rows}
    return {
        each.subject_id
        for each in latest
        if each.status == Status.REJECTED and (each.local, each.broker) == facts[each.subject_id]
    }


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
            history.waits_no_more(Break.objects.filter(pk__in=subjects))
    return count


# --- by itself ---------------------------------------------------------------------------------


def apply_by_itself(correction: Correction, row: Break, item: Found, limits: Limits) -> bool:
    """Applies a proposal of Ordinis that is within the account's limits; whether it did. Called in
    the transaction that proposed it, after the position was asked for by itself."""
    if not _within(correction, row, item, limits):
        return False
    position = lock_position(correction.account_id, row.symbol)
    correction.comment = (
        f"Within the limits of {correction.account}: at most "
        f"${plain(limits.auto_correct_max_value)} and {plain(limits.auto_correct_max_qty)} shares."
    )
    _apply(correction, position, None)
    return True


def _within(correction: Correction, row: Break, item: Found, limits: Limits) -> bool:
    if row.kind not in _BY_ITSELF or not row.quiet or correction.proposed_by_id is not None:
        return False
    if correction.value is None or correction.value > limits.auto_correct_max_value:
        return False
    if (correction.local, correction.ledger_version) != (_qty(item, row), item.ledger_version):
        return False  # it moved since it was compared
    if abs(correction.difference) > limits.auto_correct_max_qty:
        return False
    lately = Correction.objects.filter(
        position=correction.position,
        automatic=True,
        decided_at__gte=figures.database_now() - _NOT_AGAIN_WITHIN,
    )
    return not lately.exists()


def _qty(item: Found, row: Break) -> Decimal:
    """Our shares when they were compared; of an average price they are the same on both sides."""
    if item.kind == Kind.AVERAGE_PRICE:
        return Position.objects.get(account_id=row.account_id, symbol=row.symbol).qty
    return item.local


# --- deciding ----------------------------------------------------------------------------------


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
            _close(correction, Status.REJECTED, user)
            history.waits_no_more(Break.objects.filter(pk=correction.subject_id))
            return correction
        _check_mode(correction)  # it may have been changed while the broker was read
        _check_proved(correction)
        facts, position = read_facts(correction.subject, Correction.Kind(correction.kind), read)
        _check_lag(correction, facts)
        unmoved = _same(facts, _rests_on(correction), Correction.Kind(correction.kind))
        if unmoved and not trades_back:
            _apply(correction, position, user)
            return correction
        if unmoved:
            # Committed before it is sent: the same id never makes two orders.
            correction.client_order_id = f"restore-{correction.pk}"
            _close(correction, Status.APPLIED, user)
            history.waits_no_more(Break.objects.filter(pk=correction.subject_id))
    if unmoved:
        from reconciliation import trades  # it proposes with this module

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


def _rests_on(correction: Correction) -> Facts:
    return Facts(
        local=correction.local,
        broker=correction.broker,
        local_average_price=correction.local_average_price,
        broker_average_price=correction.broker_average_price,
        ledger_version=correction.ledger_version,
    )


def _same(now: Facts, before: Facts, kind: Correction.Kind) -> bool:
    """The broker's average matters where it is what is taken over."""
    if kind == Correction.Kind.TRADE:
        return (now.local, now.broker, now.ledger_version) == (
            before.local,
            before.broker,
            before.ledger_version,
        )
    if kind == Correction.Kind.CASH:  # each fill moves both sides, to the cent
        moved = (now.broker - now.local) - (before.broker - before.local)
        return abs(moved) <= _CENTS and not now.agree
    return now == before


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
            broker_for(account).position(correction.position.symbol)
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
    if correction.position is not None:
        listed = read.positions.get(correction.position.symbol)
        if (listed.qty if listed else ZERO) != (alone.qty if alone else ZERO):
            raise NotDecided(
                "The broker's list of positions and its answer for this one do not agree, so "
                "nothing was changed. Try again in a moment."
            )
    return read


# --- applying ----------------------------------------------------------------------------------


def _apply(correction: Correction, position: Position | None, user: User | None) -> None:
    """Books it, closes it and resolves its break, in the caller's transaction."""
    if correction.kind == Correction.Kind.CASH:
        correction.cash_entry = book_cash(
            correction.account,
            kind=CashEntry.Kind.CORRECTION,
            cause=f"correction/{correction.pk}",
            amount=correction.difference,
            occurred_at=correction.watermark,
            words=correction.comment,
        )
    else:
        assert position is not None
        correction.ledger_entry = _book(correction, position)
    failpoint("correction.booked")
    correction.automatic = user is None
    _close(correction, Status.APPLIED, user)
    who = user.get_username() if user else "Ordinis"
    history.end(
        correction.subject,
        Break.Status.RESOLVED,
        at=figures.database_now(),
        actor=who,
        text=f"{correction} booked: {correction.comment}",
    )


_LEDGER_KINDS: dict[str, LedgerEntry.Kind] = {
    "split": LedgerEntry.Kind.SPLIT,
    "corporate_action": LedgerEntry.Kind.CORPORATE_ACTION,
}


def _book(correction: Correction, position: Position) -> LedgerEntry:
    zombie = correction.subject.kind == Kind.ZOMBIE
    average_only = correction.kind == Correction.Kind.AVERAGE_PRICE
    explanation: dict[str, Any] = correction.explanation or {}
    kind = _LEDGER_KINDS.get(explanation.get("code", ""), LedgerEntry.Kind.CORRECTION)
    price = correction.price
    if price is None and abs(correction.broker) > abs(correction.local):
        price = correction.broker_average_price
    return book(
        position,
        kind=kind,
        cause=f"correction/{correction.pk}",
        qty=ZERO if average_only else correction.difference,
        price=None if average_only else price,
        average_price=correction.broker_average_price,
        occurred_at=correction.watermark,
        closed_reason=(
            Position.ClosedReason.EXTERNALLY if zombie else Position.ClosedReason.CORRECTED
        ),
    )


def _close(correction: Correction, status: Status, user: User | None) -> None:
    correction.status = status
    correction.decided_by, correction.decided_at = user, figures.database_now()
    correction.save(
        update_fields=(
            *("status", "comment", "decided_by", "decided_at", "ledger_entry", "cash_entry"),
            *("client_order_id", "automatic", "self_decided"),
        )
    )
    history.note(
        correction.subject,
        What.DECIDED,
        at=correction.decided_at,
        actor=user.get_username() if user else "Ordinis",
        text=f"{correction.get_status_display()}: {correction.comment}",
    )
