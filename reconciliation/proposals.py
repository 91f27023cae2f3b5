"""Proposes corrections: what would bring the book to the broker's figures, with all that it rests
on. The same facts are proposed once; decided and booked they are elsewhere.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from ordinis.accounts.models import BrokerAccount
from positions.ledger import cash_of, lock_position
from positions.models import Position
from reconciliation import history
from reconciliation.facts import ZERO, Found
from reconciliation.history import What
from reconciliation.models import Break, Correction, Kind, Snapshot
from risk.figures import Figures
from risk.limit_values import Limits, as_text
from risk.limits import in_force

Status = Correction.Status

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
_PLACES = Decimal("0.0001")
# Brokers round the cash of each fill.
_CENTS = Decimal("0.1")


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
        if latest is not None and latest.kind == kind and same(facts, rests_on(latest), kind):
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


def rests_on(correction: Correction) -> Facts:
    return Facts(
        local=correction.local,
        broker=correction.broker,
        local_average_price=correction.local_average_price,
        broker_average_price=correction.broker_average_price,
        ledger_version=correction.ledger_version,
    )


def same(now: Facts, before: Facts, kind: Correction.Kind) -> bool:
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
