"""Books a correction, exactly once, with the end of its break: what a person approved, or what the
account's limits let Ordinis correct by itself. Called with the account locked.
"""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User

from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from positions.ledger import book, book_cash, lock_position
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation import history
from reconciliation.facts import ZERO, Found
from reconciliation.history import What
from reconciliation.models import Break, Correction, Kind
from risk import figures
from risk.limit_values import Limits

Status = Correction.Status

# An orphan, a side that flipped and a split are never small: a person looks.
_BY_ITSELF = frozenset({Kind.ZOMBIE, Kind.QUANTITY, Kind.AVERAGE_PRICE})
# A position that drifts again so soon has a cause, which a correction would only hide.
_NOT_AGAIN_WITHIN = timedelta(hours=1)


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
    apply(correction, position, None)
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


def apply(correction: Correction, position: Position | None, user: User | None) -> None:
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
    close(correction, Status.APPLIED, user)
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


def close(correction: Correction, status: Status, user: User | None) -> None:
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
