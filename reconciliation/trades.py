"""Restores a position by a trade (R6): the order that brings the broker to what our book says.

Only a person proposes it, another decides, and then it goes the ordinary way of an order, with
every check. It never changes the book: what its fills bring back had never left it
(`orders.fills`), so a difference heals by as much as has filled.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final, Literal

from django.contrib.auth.models import User
from django.db import connection, transaction

from orders import quotes, statuses
from orders.errors import OrderError
from orders.fills import RESTORING
from orders.flattening import marketable
from orders.models import Order
from orders.requests import NewOrder
from orders.submission import submit
from ordinis.accounts.models import OPERATOR, BrokerAccount, Strategy
from ordinis.broker.errors import BrokerError, BrokerRefused
from ordinis.failpoints import failpoint
from ordinis.logging import correlation_id
from ordinis.numbers import plain
from positions.models import Position
from reconciliation import history, proposals
from reconciliation.models import Break, Correction, Kind
from risk import figures
from risk.figures import Figures
from risk.limits import in_force

log = logging.getLogger("ordinis.reconciliation")

MAX_SLIPPAGE_PCT: Final = Decimal("0.5")
# An approval is for the market of its moment.
_SENT_WITHIN: Final = timedelta(minutes=10)
_AT_ONCE: Final = 50
_LONGEST_SYMBOL: Final = 16  # of an order
_LOCK_CLASS: Final = 0x0D17  # of PostgreSQL's advisory locks: "trading", then the correction's id
_KINDS: Final = frozenset({Kind.ZOMBIE, Kind.ORPHAN, Kind.QUANTITY, Kind.SIDE})
_ZERO: Final = Decimal(0)


class NotProposed(Exception):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The order that would bring the broker to our book: shares, dollars a share, dollars. Without
    a limit price nothing can be sent, and `problem` says why."""

    symbol: str
    side: Literal["buy", "sell"]
    qty: Decimal
    limit_price: Decimal | None
    notional: Decimal | None
    problem: str = ""


def preview(row: Break) -> Plan:
    """What would be sent now. Reads the broker, changes nothing. Raises BrokerUnavailable or
    BrokerRefused."""
    if not row.is_open or row.kind not in _KINDS:
        return _nothing(row.symbol, _not_of_this_kind(row))
    return _plan(row.account, row.symbol, figures.ask(row.account))


def _plan(account: BrokerAccount, symbol: str, read: Figures) -> Plan:
    ours = Position.objects.filter(account=account, symbol=symbol).values_list("qty", flat=True)
    difference = (ours.first() or _ZERO) - read.shares.get(symbol, _ZERO)
    if not difference:
        return _nothing(symbol, f"Nothing of {symbol} differs any more.")
    if len(symbol) > _LONGEST_SYMBOL:  # an option
        return _nothing(symbol, f"{symbol} can't be traded here: use the broker's own app.")
    side: Literal["buy", "sell"] = "buy" if difference > 0 else "sell"
    price = _price(account, symbol, read)
    if price is None:
        return _nothing(
            symbol,
            f"The broker gives no price for {symbol} now, so no limit can be set. Try again while "
            "the market is open, or trade in the broker's own app.",
            side=side,
            qty=abs(difference),
        )
    limit_price = marketable(side, price, MAX_SLIPPAGE_PCT)
    return Plan(
        symbol=symbol,
        side=side,
        qty=abs(difference),
        limit_price=limit_price,
        notional=abs(difference) * limit_price,
    )


def _nothing(
    symbol: str, problem: str, *, side: Literal["buy", "sell"] = "buy", qty: Decimal = _ZERO
) -> Plan:
    return Plan(symbol=symbol, side=side, qty=qty, limit_price=None, notional=None, problem=problem)


def _not_of_this_kind(row: Break) -> str:
    if not row.is_open:
        return "This break has ended; there is nothing to trade."
    return (
        "No trade puts this right: only a position whose shares differ can be restored by one. "
        f"This break says: {row.get_kind_display()}."
    )


def _price(account: BrokerAccount, symbol: str, read: Figures) -> Decimal | None:
    """The broker's present price: of the position where it holds one, else its quote."""
    held = read.positions.get(symbol)
    price = held.current_price if held else None
    if price is None or not price.is_finite() or price <= 0:
        price = quotes.ask_of(account, symbol)
    return price


def propose(row: Break, *, by: User, reason: str) -> Correction:
    """Proposes the trade, for another person to decide. A waiting proposal of Ordinis gives way.

    Raises NotProposed, with nothing changed; BrokerUnavailable or BrokerRefused; ValueError
    without a reason.
    """
    reason = reason.strip()
    if not reason:
        raise ValueError("Say why: a reason is required.")
    if not row.is_open or row.kind not in _KINDS:
        raise NotProposed(_not_of_this_kind(row))
    read = figures.ask(row.account)
    plan = _plan(row.account, row.symbol, read)
    if plan.problem:
        raise NotProposed(plan.problem)
    with transaction.atomic():
        BrokerAccount.lock(row.account_id)
        row.refresh_from_db()
        if not row.is_open:
            raise NotProposed("This break has ended meanwhile; there is nothing to trade.")
        _give_way(row)
        return _store(row, plan, read, by=by, reason=reason)


def _give_way(row: Break) -> None:
    waiting = row.corrections.filter(status=Correction.Status.PROPOSED)
    own = waiting.exclude(proposed_by=None).select_related("proposed_by").first()
    if own is not None:
        raise NotProposed(
            f"Correction {own.pk}, proposed by {own.actor}, waits for a decision on this break. "
            "Have it decided first."
        )
    unsent = row.corrections.filter(
        kind=Correction.Kind.TRADE, status=Correction.Status.APPLIED, order=None, problem=""
    ).first()
    working = (
        row.corrections.filter(kind=Correction.Kind.TRADE, order__isnull=False)
        .exclude(order__status__in=sorted(statuses.CLOSED))
        .first()
    )
    if before := unsent or working:
        raise NotProposed(
            f"The order of correction {before.pk} ({before.client_order_id}) is still under way. "
            "Wait for its end, or cancel it first."
        )
    proposals.supersede(row, "A person proposed to trade instead.")


def _store(row: Break, plan: Plan, read: Figures, *, by: User, reason: str) -> Correction:
    facts, position = proposals.read_facts(row, Correction.Kind.TRADE, read)
    if abs(facts.local - facts.broker) != plan.qty:
        raise NotProposed("The position moved just now. Look at the break again.")
    return proposals.make(
        row,
        Correction.Kind.TRADE,
        facts,
        read,
        position=position,
        limits=in_force(row.account_id),
        price=plan.limit_price,
        value=plan.notional,
        explanation=row.explanation,
        by=by,
        reason=reason,
    )


# --- what follows from an approval -------------------------------------------------------------


def carry_out(correction_id: int) -> Correction:
    """Sends the order of an approved trade, once, however often and wherever this is called; what
    became of it is stored as `order`, `problem` or both. Where the broker can't be read now neither
    is, and `pursue` tries again."""
    with _alone(correction_id) as mine:
        correction = Correction.objects.select_related(
            "account", "position", "subject", "decided_by"
        ).get(pk=correction_id)
        if mine and _is_due(correction):
            try:
                _send(correction)
            except Exception:  # the approval is committed: pursued, not lost
                log.exception("trade not sent", extra={"correction": correction_id})
    return correction


def pursue() -> None:
    """Carries out what was approved and not sent yet: its process may have died, or the broker
    been away."""
    due = Correction.objects.filter(
        kind=Correction.Kind.TRADE, status=Correction.Status.APPLIED, order=None, problem=""
    ).order_by("decided_at")
    for correction_id in list(due.values_list("pk", flat=True)[:_AT_ONCE]):
        carry_out(correction_id)


@contextmanager
def _alone(correction_id: int) -> Iterator[bool]:
    """Whether nobody else is sending it just now. The lock dies with its process."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, correction_id))
        (mine,) = cursor.fetchone()
        try:
            yield mine
        finally:
            if mine:
                cursor.execute("SELECT pg_advisory_unlock(%s, %s)", (_LOCK_CLASS, correction_id))


def _is_due(correction: Correction) -> bool:
    return (
        correction.kind == Correction.Kind.TRADE
        and correction.status == Correction.Status.APPLIED
        and correction.order_id is None
        and not correction.problem
    )


def _send(correction: Correction) -> None:
    strategy, _ = Strategy.objects.get_or_create(account=correction.account, name=OPERATOR)
    # Sent before its process died, or not stored yet: then the resolver has it.
    if standing := _standing(correction, strategy):
        _conclude(correction, order=standing)
        return
    assert correction.decided_at is not None, "it was approved"
    if figures.database_now() - correction.decided_at > _SENT_WITHIN:
        minutes = int(_SENT_WITHIN.total_seconds() // 60)
        _conclude(
            correction,
            problem=f"It was not sent in time: {minutes} minutes after the approval the market is "
            "another one. Propose it again.",
        )
        return
    try:
        read = figures.ask(correction.account)
        plan = _checked(correction, read)
        if plan.problem:
            _conclude(correction, problem=plan.problem)
            return
        done = submit(
            strategy,
            _order(correction, plan),
            actor=correction.decided_by.get_username() if correction.decided_by else "",
            correlation_id=correlation_id.get(),
        )
    except OrderError as error:
        if standing := _standing(correction, strategy):
            _conclude(correction, order=standing)
        else:
            _conclude(correction, problem=f"The order was not taken: {error}")
        return
    except BrokerRefused as error:
        _conclude(correction, problem=f"The broker could not be read: {error.message}")
        return
    except BrokerError as error:
        log.warning("trade not sent yet", extra={"correction": correction.pk, "error": f"{error}"})
        return
    failpoint("trade.submitted")
    _conclude(correction, order=done.order)


def _standing(correction: Correction, strategy: Strategy) -> Order | None:
    return Order.objects.filter(
        strategy=strategy, client_order_id=correction.client_order_id
    ).first()


def _checked(correction: Correction, read: Figures) -> Plan:
    """What is sent now; nothing but what was approved."""
    assert correction.position is not None, "a trade is of a position"
    symbol = correction.position.symbol
    plan = _plan(correction.account, symbol, read)
    ours = Position.objects.get(pk=correction.position.pk).qty
    theirs = read.shares.get(symbol, _ZERO)
    if (ours, theirs) == (correction.local, correction.broker):
        return plan
    return _nothing(
        symbol,
        f"The facts moved after the approval: it rested on our {plain(correction.local)} against "
        f"the broker's {plain(correction.broker)}; now it is {plain(ours)} against "
        f"{plain(theirs)}. Nothing was sent.",
    )


def _order(correction: Correction, plan: Plan) -> NewOrder:
    assert correction.client_order_id.startswith(RESTORING), "its fills are known by it"
    return NewOrder(
        client_order_id=correction.client_order_id,
        symbol=plan.symbol,
        side=plan.side,
        type="limit",
        qty=plan.qty,
        limit_price=plan.limit_price,
    )


def _conclude(correction: Correction, *, order: Order | None = None, problem: str = "") -> None:
    """Stores what became of it. The break stays open until a comparison heals it."""
    if order is not None:
        problem = _refusal(order)
        said = f"Order {order.client_order_id}: {order.side} {plain(order.qty)} {order.symbol}."
    else:
        said = "Nothing was sent."
    with transaction.atomic():
        BrokerAccount.lock(correction.account_id)
        correction.order, correction.problem = order, problem
        correction.save(update_fields=("order", "problem"))
        history.note(
            correction.subject,
            history.What.COMMENTED,
            at=figures.database_now(),
            text=f"{said} {problem}".strip(),
        )


def _refusal(order: Order) -> str:
    """Why an order did not come to the market, where it did not."""
    if order.status == statuses.DENIED:
        why = "; ".join(violation["message"] for violation in order.violations)
        return f"Our own checks denied it: {why}"
    if order.status == statuses.REJECTED:
        told = (order.rejection or {}).get("message") or "it gave no reason"
        return f"The broker refused it: {told}"
    if order.status == statuses.FAILED:
        return "It never reached the broker. Propose it again."
    return ""
