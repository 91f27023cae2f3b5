"""Replaces a standing order by another of its chain: a new quantity, a new limit price.

The successor is an order of its own, committed before the broker is asked and found by its client
order id when the answer is lost. The old one becomes `replaced` when the broker says so; until
then both count. A replacement is never sent twice: what is not found is given up.
"""

from dataclasses import asdict, dataclass
from decimal import Decimal
from uuid import UUID, uuid4

from django.db import IntegrityError
from django.db.models import Q

from orders import assets, exits, idempotency, lifecycle, pricing, quotes, rates, statuses, terms
from orders.errors import OrderSubmissionError
from orders.judgement import Judged, Question, judge
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.requests import fingerprint_of
from orders.sending import patience, send
from orders.submission import Submitted, denied, mark
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from risk.checks import Intent
from risk.limits import in_force


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be different. `qty` is the new total, what has filled included."""

    client_order_id: str | None
    qty: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None


def replace(
    strategy: Strategy, order_id: UUID, change: Change, *, actor: str, correlation_id: str
) -> Submitted:
    """Judges and asks for the replacement of an open order; returns the new one.

    Raises OrderSubmissionError, BrokerUnavailable or BrokerRefused (then nothing is stored or
    sent).
    """
    fingerprint = fingerprint_of({"replaces": order_id, **asdict(change)})
    if standing := idempotency.named(strategy, change.client_order_id, fingerprint):
        return Submitted(standing, repeated=True)
    old = Order.objects.select_related("account", "strategy").get(pk=order_id)
    _check_replaceable(old, change)
    order = _successor(old, change, fingerprint)
    order.correlation_id = correlation_id
    if old.has_dependents:
        waiting = Order.objects.filter(parent__chain=old.chain, status=statuses.WAITING)
        exits.check_prices(order, waiting)
    limits = in_force(old.account_id, old.strategy_id)
    # A stop-loss can be moved whatever else the strategy has sent.
    is_exit = old.role in (Order.Role.TAKE_PROFIT, Order.Role.STOP_LOSS)
    sent_lately = (
        rates.Rates() if is_exit else rates.check(strategy, limits, reduce_only=old.reduce_only)
    )
    asset = assets.asset_of(old.account, old.symbol)
    terms.check(terms.of(order), asset)

    def first() -> Submitted | None:
        if standing := idempotency.bound(strategy, change.client_order_id, fingerprint):
            return Submitted(standing, repeated=True)
        old.refresh_from_db()
        try:
            _check_replaceable(old, change)
            if not is_exit:
                rates.check(strategy, limits, reduce_only=old.reduce_only)
        except OrderSubmissionError:
            # The same request may have been stored since we looked.
            standing = idempotency.named(strategy, change.client_order_id, fingerprint)
            if standing is None:
                raise
            return Submitted(standing, repeated=True)
        return None

    def conclude(locked: BrokerAccount, judged: Judged) -> Submitted:
        if judged.violations:
            denied(order, judged, actor=actor)
            return Submitted(order)
        mark(order, judged, locked)
        order.judged_at = order.submitted_at = locked.database_time
        order.attempts = 1
        why = f"Replaces {old.client_order_id}."
        lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, actor, why))
        failpoint("replace.recorded")
        return Submitted(order)

    price = order.worst_price or Decimal(0)
    intent = Intent(
        symbol=order.symbol,
        side=order.side,
        qty=order.qty - old.filled_qty,
        worst_price=price,
        type=order.type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        # The reference was given with the first order, perhaps long ago: no guard for a price now.
        ask=(quotes.ask_of(old.account, old.symbol) or old.reference_price)
        if old.sells_short
        else None,
        is_dependent=is_exit,
        is_pair=_is_paired(old),
        replaced_qty=old.pending_qty,
        replaced_cost=old.pending_qty * (old.worst_price or price),
    )
    question = Question(
        account=old.account,
        intent=intent,
        limits=limits,
        order_id=order.pk,
        strategy_id=old.strategy_id,
        asset=asset,
        rates=lambda: sent_lately,
    )
    try:
        judged = judge(question, conclude, first=first)
    except IntegrityError:
        if standing := idempotency.named(strategy, change.client_order_id, fingerprint):
            return Submitted(standing, repeated=True)
        raise
    if judged.order.status != statuses.SUBMITTING or judged.order is not order:
        return judged
    failpoint("replace.committed")
    return Submitted(send(order, sent_by=patience()))


def _check_replaceable(old: Order, change: Change) -> None:
    if not old.is_open or old.status in statuses.UNPROVED | statuses.UNSENT:
        raise OrderSubmissionError(
            "order_not_replaceable",
            f"An order that is {old.status} can't be replaced. "
            + ("Cancel it, and send another." if old.is_open else "Send a new one."),
        )
    if old.cancel_requested_at is not None:
        raise OrderSubmissionError(
            "order_not_replaceable", "The order is being cancelled. Send a new one."
        )
    if old.replacements.exclude(status__in=sorted(statuses.CLOSED)).exists():
        raise OrderSubmissionError(
            "order_not_replaceable",
            "The order is being replaced already. Replace the new one when it is confirmed.",
        )
    names = ("qty", "limit_price", "stop_price")
    if all(getattr(change, name) in (None, getattr(old, name)) for name in names):
        raise OrderSubmissionError(
            "invalid_request",
            "The order is like that already: give another qty, limit_price or stop_price.",
        )
    if change.limit_price is not None and old.limit_price is None:
        raise OrderSubmissionError(
            "invalid_request", f"A {old.type} order has no limit_price to replace."
        )
    if change.stop_price is not None and old.stop_price is None:
        raise OrderSubmissionError(
            "invalid_request", f"A {old.type} order has no stop_price to replace."
        )
    if change.qty is None:
        return
    if change.qty <= old.filled_qty:
        raise OrderSubmissionError(
            "qty_not_above_filled",
            f"qty is the new total: it must be more than the {plain(old.filled_qty)} filled.",
        )
    if change.qty % 1 or old.qty % 1:
        raise OrderSubmissionError(
            "invalid_request", "The broker replaces quantities of whole shares only."
        )
    if change.qty != old.qty and _is_paired(old):
        raise OrderSubmissionError(
            "order_not_replaceable",
            "The quantity of a take-profit and stop-loss pair can't be replaced, its prices can.",
        )
    if old.parent_id is not None and change.qty > old.qty:
        raise OrderSubmissionError(
            "qty_above_filled", "A dependent order is never for more than its parent has filled."
        )


def _is_paired(old: Order) -> bool:
    """Whether it is one of a pair, itself or as the successor of one."""
    chain = Order.objects.filter(chain=old.chain)
    return chain.filter(Q(order_class="oco") | Q(leg_of__isnull=False)).exists()


def _successor(old: Order, change: Change, fingerprint: str) -> Order:
    limit_price = change.limit_price or old.limit_price
    stop_price = change.stop_price or old.stop_price
    worst_price = limit_price or (stop_price and pricing.collared(stop_price)) or old.worst_price
    return old.successor(
        client_order_id=change.client_order_id or f"ord-{uuid4()}",
        fingerprint=fingerprint,
        qty=change.qty or old.qty,
        limit_price=limit_price,
        stop_price=stop_price,
        worst_price=worst_price,
    )
