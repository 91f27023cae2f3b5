"""Takes an order in, judges it, and sends it exactly once.

The intent is committed before the broker is contacted; whatever happens after that, the resolver
(`orders.resolver`) finds out what became of it. No network call is made inside a transaction.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from orders import lifecycle, pricing, statuses
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.sync import ensure_open_book
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.errors import (
    BrokerUnavailable,
    DuplicateClientOrderId,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
)
from ordinis.numbers import plain
from risk import figures
from risk.checks import Context, Intent, Violation, evaluate, usable_buying_power
from risk.commitments import Commitment, Committed, committed
from risk.limits import Limits, in_force

log = logging.getLogger("ordinis.orders")

_MOST_QUESTIONS = 4
_MARGIN = timedelta(seconds=settings.ACKNOWLEDGEMENT_MARGIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """What a strategy asks for, parsed: shares and dollars. Either `limit_price` is given, or
    `reference_price`, from which the configured offset makes it."""

    client_order_id: str | None
    symbol: str
    side: Literal["buy", "sell"]
    type: str
    qty: Decimal
    reference_price: Decimal | None
    limit_price: Decimal | None
    time_in_force: str
    extended_hours: bool

    @property
    def fingerprint(self) -> str:
        """Equal for equal orders, however their decimals were written."""
        body = {
            name: f"{plain(value)}" if isinstance(value, Decimal) else value
            for name, value in asdict(self).items()
        }
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Submitted:
    """The order, and whether it stood already (the same client id and body again)."""

    order: Order
    repeated: bool = False


class ClientOrderIdReused(Exception):
    """The client id was used before, with another body or by another strategy of the account.
    `order` is the standing one where it is the caller's own."""

    def __init__(self, client_order_id: str, order: Order | None) -> None:
        super().__init__(
            f"client_order_id {client_order_id} was used before for another order. "
            "Use a new one for a new order."
        )
        self.order = order


class OrderTypeNotEnabled(Exception):
    """Orders of this type are not taken."""

    def __init__(self, order_type: str) -> None:
        super().__init__(
            f"Orders of type {order_type} are not enabled. Send a limit order: type limit with "
            "limit_price or reference_price."
        )


def submit(strategy: Strategy, new: NewOrder, *, actor: str, correlation_id: str) -> Submitted:
    """Judges and sends an order; returns it in whatever state it reached.

    Raises ClientOrderIdReused, OrderTypeNotEnabled, pricing.Unpriceable, and BrokerUnavailable or
    BrokerRefused when fresh figures could not be had (then nothing is stored or sent).
    """
    account = strategy.account
    if standing := _standing(strategy, new):
        return Submitted(standing, repeated=True)
    if new.type != "limit":
        raise OrderTypeNotEnabled(new.type)
    limits = in_force(account.pk, strategy.pk)
    limit_price = _limit_price(new, limits)
    ensure_open_book(account)
    intent = Intent(symbol=new.symbol, side=new.side, qty=new.qty, limit_price=limit_price)
    order = Order(
        id=uuid4(),
        account=account,
        strategy=strategy,
        client_order_id=new.client_order_id or f"ord-{uuid4()}",
        fingerprint=new.fingerprint,
        symbol=new.symbol,
        side=new.side,
        qty=new.qty,
        type=new.type,
        time_in_force=new.time_in_force,
        extended_hours=new.extended_hours,
        reference_price=new.reference_price,
        limit_price=limit_price,
        correlation_id=correlation_id,
    )
    try:
        _judge_and_store(order, intent, limits, actor=actor)
    except IntegrityError:
        # Another caller stored the same client id between our look and our insert.
        if standing := _standing(strategy, new):
            return Submitted(standing, repeated=True)
        raise
    if order.status != statuses.SUBMITTING:
        return Submitted(order)
    return Submitted(send(order, sent_by=time.monotonic() + settings.BROKER_TIMEOUT))


def send(order: Order, *, sent_by: float) -> Order:
    """Hands a `submitting` order to the broker, once, and stores what that proved.

    `sent_by` (monotonic seconds): later than that the resolver may have taken the order over, so
    nothing is sent any more.
    """
    started = time.monotonic()
    if started > sent_by:
        return _lost(order, "The process was too slow to send it; the resolver takes it over.")
    try:
        report = broker_for(order.account).submit(order.request)
    except OrderRefused as error:
        refused = {"code": error.code, "message": error.message, "fields": error.fields}
        _log(order, "refused", started, error=error.message)
        if order.attempts > 1:
            # Only this sending was refused; the one before may have been taken, and may be why.
            return _lost(order, f"Sending it again was refused: {error.message}")
        return _decide(order, statuses.REJECTED, error.message, rejection=refused)
    except (OutcomeUnknown, DuplicateClientOrderId, NotSent) as error:
        # A duplicate means that an order of this id exists: the look-up will show whether it is
        # this one. What never left this machine is sent again by the resolver.
        _log(order, "unresolved", started, error=error.message)
        return _lost(order, error.message)
    _log(order, report.status, started)
    try:
        return lifecycle.observe(order.pk, report, Origin(Source.SUBMIT, "broker"))
    except lifecycle.MismatchedReport as mismatch:
        _lost(order, str(mismatch))
        return settle_mismatch(order, mismatch)


def settle_mismatch(order: Order, mismatch: lifecycle.MismatchedReport) -> Order:
    """Tells a person that the broker has another order under our client id. One that is older
    than ours proves that ours was never taken; any other may be ours, changed: a person decides."""
    raise_alert(
        order.account_id,
        code="mismatched_order",
        subject=str(order.pk),
        severity=Alert.Severity.CRITICAL,
        message=str(mismatch),
    )
    if not mismatch.foreign:
        return order
    spent = {"code": "client_order_id_spent", "message": str(mismatch), "fields": {}}
    why = f"The client order id was spent at the broker before. {mismatch}"
    return _decide(order, statuses.REJECTED, why, rejection=spent)


def _standing(strategy: Strategy, new: NewOrder) -> Order | None:
    if new.client_order_id is None:
        return None
    order = (
        Order.objects.select_related("account", "strategy")
        .filter(account_id=strategy.account_id, client_order_id=new.client_order_id)
        .first()
    )
    if order and order.strategy_id != strategy.pk:
        raise ClientOrderIdReused(new.client_order_id, None)
    if order and order.fingerprint != new.fingerprint:
        raise ClientOrderIdReused(new.client_order_id, order)
    return order


def _limit_price(new: NewOrder, limits: Limits) -> Decimal:
    offsets = pricing.Offsets(
        mode="absolute" if limits.offset_mode == "absolute" else "bps",
        buy=limits.buy_offset,
        sell=limits.sell_offset,
        max_slippage_pct=limits.max_slippage_pct,
    )
    if new.limit_price is None:
        assert new.reference_price is not None, "the API asks for one of the two"
        return pricing.limit_price(new.side, new.reference_price, offsets)
    if not pricing.is_on_tick(new.limit_price):
        raise pricing.Unpriceable(
            "limit_price_off_tick",
            f"limit_price {plain(new.limit_price)} is not a multiple of the smallest step, "
            f"{pricing.tick(new.limit_price)}.",
        )
    if new.reference_price is not None:
        pricing.check_slippage(new.limit_price, new.reference_price, offsets)
    return new.limit_price


def _judge_and_store(order: Order, intent: Intent, limits: Limits, *, actor: str) -> None:
    """Judges under the account's lock and stores the order `submitting` or `denied`.

    Shared figures are enough while the order uses little of what is left; a denial, and an order
    that takes more than half of it, are only ever decided on figures asked for anew. Figures that
    got too old while waiting for the lock are asked for again, with the lock let go.
    """
    snapshot, fresh = figures.shared(order.account), settings.FIGURES_MAX_AGE == 0
    for _ in range(_MOST_QUESTIONS):
        with transaction.atomic():
            locked = BrokerAccount.lock(order.account_id)
            if not snapshot.is_older_than(max(settings.FIGURES_MAX_AGE, 1)):
                context = _context(order, snapshot)
                violations = evaluate(intent, context, limits)
                thin = _is_thin(intent, context, limits)
                if fresh or not (violations or thin):
                    _store(order, violations, now=locked.database_time, actor=actor)
                    return
        snapshot, fresh = figures.ask(order.account), True
    raise BrokerUnavailable("Other orders of the account kept it busy for too long.")


def _is_thin(intent: Intent, context: Context, limits: Limits) -> bool:
    if intent.side == "sell":
        free = context.free_qty - context.committed.shares.get(intent.symbol, Decimal(0))
        return intent.qty * 2 > free
    return intent.cost * 2 > usable_buying_power(context, limits)


def _context(order: Order, snapshot: figures.Figures) -> Context:
    held = snapshot.positions.get(order.symbol)
    rows = list(_not_contained(order.account_id, snapshot.asked_at))
    return Context(
        account=snapshot.account,
        free_qty=held.qty_available if held else Decimal(0),
        committed=_committed(rows, snapshot.asked_at),
        unresolved_symbols=frozenset(
            row.symbol for row in rows if row.status == statuses.UNRESOLVED
        ),
    )


def _not_contained(account_id: int, asked_at: datetime) -> QuerySet[Order]:
    """The orders that a snapshot asked for at `asked_at` may lack."""
    return Order.objects.filter(
        Q(acknowledged_at__gt=asked_at - _MARGIN)
        | Q(acknowledged_at=None, status__in=sorted(statuses.UNPROVED)),
        account_id=account_id,
    )


def _committed(rows: Iterable[Order], asked_at: datetime) -> Committed:
    return committed(
        (
            Commitment(
                symbol=row.symbol,
                side=row.side,
                limit_price=row.limit_price,
                filled_qty=row.filled_qty,
                average_fill_price=row.average_fill_price,
                open_qty=row.pending_qty,
                acknowledged_at=row.acknowledged_at,
            )
            for row in rows
        ),
        asked_at,
        _MARGIN,
    )


def reserved(account_id: int, asked_at: datetime) -> Decimal:
    """Dollars that orders commit beyond the figures of a snapshot (`reserved` of GET /account)."""
    return _committed(_not_contained(account_id, asked_at), asked_at).money


def _store(order: Order, violations: list[Violation], *, now: datetime, actor: str) -> None:
    if violations:
        order.violations = [
            {
                "code": violation.code,
                "message": violation.message,
                "limit": f"{violation.limit:f}",
                "actual": f"{violation.actual:f}",
            }
            for violation in violations
        ]
        reason = "; ".join(violation.message for violation in violations)
        lifecycle.record_intent(order, statuses.DENIED, Origin(Source.RISK, actor, reason))
        return
    order.submitted_at = now
    order.attempts = 1
    lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, actor))


def _lost(order: Order, why: str) -> Order:
    return _decide(order, statuses.UNRESOLVED, why)


def _decide(order: Order, to: str, why: str, **changes: Any) -> Order:
    """What the send proved. The stream may have told the order's fate before: then that holds."""
    try:
        return lifecycle.transition(order.pk, to, Origin(Source.SUBMIT, "broker", why), **changes)
    except statuses.InvalidTransition:
        return Order.objects.select_related("account", "strategy").get(pk=order.pk)


def _log(order: Order, outcome: str, started: float, error: str = "") -> None:
    log.info(
        "order %s",
        outcome,
        extra={
            "order": str(order.pk),
            "client_order_id": order.client_order_id,
            "symbol": order.symbol,
            "side": order.side,
            "qty": f"{order.qty:f}",
            "limit_price": f"{order.limit_price:f}",
            "attempt": order.attempts,
            "latency_ms": round((time.monotonic() - started) * 1000, 1),
            "error": error,
        },
    )


def resend(order_id: UUID) -> Order:
    """Sends an unresolved order once more, with the same id and body (only the resolver does)."""
    deadline = time.monotonic() + settings.BROKER_TIMEOUT
    current = Order.objects.get(pk=order_id)
    order = lifecycle.transition(
        order_id,
        statuses.SUBMITTING,
        Origin(Source.SUBMIT, "resolver", "The broker knows nothing of it: sent once more."),
        submitted_at=figures.database_now(),
        attempts=current.attempts + 1,
        lookups_missed=0,
        first_missed_at=None,
    )
    return send(order, sent_by=deadline)
