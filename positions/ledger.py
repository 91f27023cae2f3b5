"""The one place where a position changes.

Every change is a ledger entry with its cause; the same cause is booked once. Never called
outside a transaction, never with the account's lock still to be taken (the order of locks is
account, order, position).
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount
from positions.models import CashEntry, LedgerEntry, Position

PRICE_STEP = Decimal("0.000000001")


@dataclass(frozen=True, slots=True)
class Holding:
    """Shares (signed) and their average cost; no price when nothing is held or it is unknown."""

    qty: Decimal
    average_price: Decimal | None


def after(held: Holding, qty: Decimal, price: Decimal | None) -> Holding:
    """The holding after `qty` more shares (signed) at `price`.

    Average cost: what adds to a position moves the average, what reduces it leaves it, and what
    turns it round starts a new one at its own price.
    """
    total = held.qty + qty
    if total == 0:
        return Holding(total, None)
    if held.qty == 0 or (held.qty > 0) != (total > 0):
        return Holding(total, price)
    if (held.qty > 0) != (qty > 0):
        return Holding(total, held.average_price)
    if held.average_price is None or price is None:
        return Holding(total, held.average_price or price)
    average = (held.qty * held.average_price + qty * price) / total
    return Holding(total, average.quantize(PRICE_STEP))


def after_split(held: Holding, qty: Decimal) -> Holding:
    """The holding after a split gave (or took) `qty` shares: its cost stays what it was."""
    total = held.qty + qty
    if total == 0 or held.average_price is None:
        return Holding(total, None)
    return Holding(total, (held.qty * held.average_price / total).quantize(PRICE_STEP))


def realized(held: Holding, qty: Decimal, price: Decimal | None) -> Decimal:
    """Dollars that `qty` shares (signed) at `price` earn over the cost of those they close."""
    if not held.qty or not qty or (held.qty > 0) == (qty > 0):
        return Decimal(0)
    if held.average_price is None or price is None:
        return Decimal(0)
    closed = min(abs(held.qty), abs(qty))
    gained = (price - held.average_price) * (closed if held.qty > 0 else -closed)
    return gained.quantize(PRICE_STEP)


def lock_position(account_id: int, symbol: str) -> Position:
    """The position's row, made where missing, locked until the transaction ends."""
    Position.objects.bulk_create(
        [Position(account_id=account_id, symbol=symbol)], ignore_conflicts=True
    )
    return Position.objects.select_for_update(no_key=True).get(account_id=account_id, symbol=symbol)


def book(
    position: Position,
    *,
    kind: LedgerEntry.Kind,
    cause: str,
    qty: Decimal,
    price: Decimal | None,
    occurred_at: datetime,
    strategy_id: int | None = None,
    closed_reason: Position.ClosedReason = Position.ClosedReason.BY_ORDER,
    average_price: Decimal | None = None,
) -> LedgerEntry:
    """Books `qty` shares (signed) on a position locked by `lock_position`.

    `average_price` overrides the derived average (a correction takes over the broker's).
    Raises IntegrityError when this cause was booked before.
    """
    assert transaction.get_connection().in_atomic_block, "the position must be locked"
    before = Holding(position.qty, position.average_price)
    split = kind == LedgerEntry.Kind.SPLIT
    held = after_split(before, qty) if split else after(before, qty, price)
    if average_price is not None and held.qty:
        held = Holding(held.qty, average_price)
    profit = Decimal(0) if split else realized(before, qty, price)
    position.ledger_version += 1
    entry = LedgerEntry.objects.create(
        account_id=position.account_id,
        position=position,
        seq=position.ledger_version,
        kind=kind,
        cause=cause,
        strategy_id=strategy_id,
        qty=qty,
        price=price,
        qty_after=held.qty,
        average_price_after=held.average_price,
        realized_profit=profit,
        occurred_at=occurred_at,
    )
    position.realized_profit += profit
    if kind == LedgerEntry.Kind.FILL and price is not None:
        position.cash_flow -= (qty * price).quantize(PRICE_STEP)
    position.qty, position.average_price = held.qty, held.average_price
    position.status = Position.Status.OPEN if held.qty else Position.Status.CLOSED
    position.closed_reason = "" if held.qty else closed_reason
    position.updated_at = Now()
    position.save(
        update_fields=(
            "qty",
            "average_price",
            "status",
            "closed_reason",
            "ledger_version",
            "realized_profit",
            "cash_flow",
            "updated_at",
        )
    )
    return entry


def book_cash(
    account: BrokerAccount,
    *,
    kind: CashEntry.Kind,
    cause: str,
    amount: Decimal,
    occurred_at: datetime,
    words: str = "",
) -> CashEntry:
    """Books dollars that moved otherwise than by a fill of ours, with the account locked.

    Raises IntegrityError when this cause was booked before.
    """
    assert transaction.get_connection().in_atomic_block, "the account must be locked"
    return CashEntry.objects.create(
        account=account, kind=kind, cause=cause, amount=amount, occurred_at=occurred_at, words=words
    )


def cash_of(account_id: int) -> Decimal | None:
    """The dollars that should be there by our own books; None before the book was opened."""
    entries = CashEntry.objects.filter(account=account_id).aggregate(total=Sum("amount"))["total"]
    if entries is None:
        return None
    flows = Position.objects.filter(account=account_id).aggregate(total=Sum("cash_flow"))["total"]
    return Decimal(entries + (flows or 0))
