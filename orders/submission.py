"""Takes an order in, judges it, and has it sent exactly once.

The intent is committed before the broker is contacted. No network call is made inside a
transaction.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from django.db import IntegrityError, transaction

from orders import (
    assets,
    exits,
    idempotency,
    lifecycle,
    pricing,
    quotes,
    rates,
    statuses,
    terms,
    wake,
)
from orders.errors import OrderSubmissionError
from orders.judgement import Judged, Question, judge
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.rates import RateLimited, Rates
from orders.requests import NewOrder
from orders.sending import patience, send
from orders.sync import ensure_open_book
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from risk import figures, trading
from risk.checks import Intent, Violation, sells_short
from risk.limits import Limits, in_force


@dataclass(frozen=True, slots=True)
class Submitted:
    """The order; whether it stood already under this client id (`repeated`), or under another one
    with the same content (`duplicate`)."""

    order: Order
    repeated: bool = False
    duplicate: bool = False


class OrderTypeNotEnabled(OrderSubmissionError):
    """The account's limits do not enable orders of this type."""

    def __init__(self, order_type: str) -> None:
        super().__init__(
            "order_type_not_enabled",
            f"Orders of type {order_type} are not enabled. Send a limit order: type limit with "
            "limit_price or reference_price. The limit allowed_order_types enables others.",
        )


def submit(strategy: Strategy, new: NewOrder, *, actor: str, correlation_id: str) -> Submitted:
    """Judges and sends an order; returns it in whatever state it reached.

    Raises OrderSubmissionError, and BrokerUnavailable or BrokerRefused when fresh figures could
    not be had (then nothing is stored or sent).
    """
    if standing := idempotency.named(strategy, new.client_order_id, new.fingerprint):
        return Submitted(standing, repeated=True)
    account = strategy.account
    limits = in_force(account.pk, strategy.pk)
    order = priced(strategy, new, limits)
    order.correlation_id = correlation_id
    if new.parent is not None:
        return _dependent(order, new, limits, actor=actor)
    children = exits.of(order, new)
    order.has_dependents = bool(children)
    is_enabled = new.type in limits.allowed_order_types
    # The look under the lock counts. One before spares a duplicate what would come in between:
    # the broker's answer, and a refusal.
    limited, sent_lately = _rate(strategy, new, limits)
    will_be_looked_for = is_enabled and not limited and figures.are_at_hand(account)
    looks = limits.duplicate_guard and not will_be_looked_for
    if looks and idempotency.alike(strategy, order, children):
        with transaction.atomic():
            BrokerAccount.lock(account.pk)
            if found := standing_like(strategy, new, order, children, limits):
                return found
    if not is_enabled:
        raise OrderTypeNotEnabled(new.type)
    if limited:
        raise limited
    asset = assets.asset_of(account, new.symbol)
    for each in (terms.of(order), *exits.terms_of(children)):
        terms.check(each, asset)
    ask = ask_for(order, limits)
    order.worst_price = worst_price(order, limits, ask)
    ensure_open_book(account)
    failpoint("submit.received")

    def first() -> Submitted | None:
        found = standing_like(strategy, new, order, children, limits)
        if found is not None:
            return found
        # Once more, now that nobody else can store one.
        nonlocal sent_lately
        limited, sent_lately = _rate(strategy, new, limits)
        if limited:
            standing = idempotency.named(strategy, new.client_order_id, new.fingerprint)
            if standing is None:
                raise limited
            return Submitted(standing, repeated=True)
        return None

    def conclude(locked: BrokerAccount, judged: Judged) -> Submitted:
        _store(order, children, judged, locked, actor=actor)
        return Submitted(order)

    question = Question(
        account=account,
        intent=intent_of(order, ask),
        limits=limits,
        order_id=order.pk,
        strategy_id=strategy.pk,
        asset=asset,
        rates=lambda: sent_lately,
        reduce_only=new.reduce_only,
    )
    try:
        judged = judge(question, conclude, first=first)
    except IntegrityError:
        # Another caller stored the same client id between our look and our insert.
        if standing := idempotency.named(strategy, new.client_order_id, new.fingerprint):
            return Submitted(standing, repeated=True)
        raise
    if judged.order.status != statuses.SUBMITTING or judged.order is not order:
        return judged
    return Submitted(send(order, sent_by=patience()))


def _rate(strategy: Strategy, new: NewOrder, limits: Limits) -> tuple[RateLimited | None, Rates]:
    sent = rates.of(strategy, reduce_only=new.reduce_only)
    return rates.limited(strategy, limits, sent, reduce_only=new.reduce_only), sent


def ask_for(order: Order, limits: Limits) -> Decimal | None:
    """What a share costs now, asked for where no price of the order's own bounds what it may come
    to: the broker's quote, or what the strategy expects where that is more."""
    unbounded = order.side == Order.Side.BUY and order.type in ("market", "trailing_stop")
    may_short = order.side == Order.Side.SELL and limits.allow_short and not order.reduce_only
    if not (unbounded or may_short):
        return None
    told = (quotes.ask_of(order.account, order.symbol), order.reference_price)
    return max((price for price in told if price is not None), default=None)


def intent_of(order: Order, ask: Decimal | None) -> Intent:
    """What is judged of an order that replaces nothing."""
    return Intent(
        symbol=order.symbol,
        side=order.side,
        qty=order.qty,
        worst_price=order.worst_price or Decimal(0),
        type=order.type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
        reference_price=order.reference_price,
        ask=ask,
    )


def _dependent(order: Order, new: NewOrder, limits: Limits, *, actor: str) -> Submitted:
    """Stores an order that waits for the fill of a standing one. It is judged when it is sent."""
    assert new.parent is not None
    exits.bind_to(order, new)
    terms.check(terms.of(order), assets.asset_of(order.account, order.symbol))
    order.worst_price = worst_price(order, limits)
    with transaction.atomic():
        BrokerAccount.lock(order.account_id)
        if standing := idempotency.named(order.strategy, new.client_order_id, new.fingerprint):
            return Submitted(standing, repeated=True)
        rates.check(order.strategy, limits)
        lifecycle.record_intent(order, statuses.WAITING, Origin(Source.API, actor))
        of_the_parent = Order.objects.filter(pk=new.parent).values("chain")
        chain = Order.objects.filter(chain__in=of_the_parent).order_by("pk")
        locked = chain.select_for_update(no_key=True).values_list("pk", flat=True)
        Order.objects.filter(pk__in=list(locked)).update(has_dependents=True)
    wake.dependents_of(new.parent)
    return Submitted(order)


def standing_like(
    strategy: Strategy, new: NewOrder, order: Order, children: list[Order], limits: Limits
) -> Submitted | None:
    """What stands already, looked for with the account locked, so that nobody else can store or
    bind the same at once."""
    if standing := idempotency.bound(strategy, new.client_order_id, new.fingerprint):
        return Submitted(standing, repeated=True)
    same = idempotency.alike(strategy, order, children) if limits.duplicate_guard else None
    if same is None:
        return None
    # An order may have taken the id for its own since we looked.
    if standing := idempotency.named(strategy, new.client_order_id, new.fingerprint):
        return Submitted(standing, repeated=True)
    if new.client_order_id is not None:
        idempotency.bind(same, new.client_order_id, new.fingerprint)
    return Submitted(same, duplicate=True)


def priced(strategy: Strategy, new: NewOrder, limits: Limits) -> Order:
    """The order, with the limit price that its reference and the offsets make, not stored yet."""
    offsets = pricing.Offsets(
        mode="absolute" if limits.offset_mode == "absolute" else "bps",
        buy=limits.buy_offset,
        sell=limits.sell_offset,
        max_slippage_pct=limits.max_slippage_pct,
    )
    limit_price = new.limit_price
    if new.type == "limit" and limit_price is None:
        if new.reference_price is None:
            raise OrderSubmissionError(
                "invalid_request", "Give limit_price, or reference_price to have it made from."
            )
        limit_price = pricing.limit_price(new.side, new.reference_price, offsets)
    return Order(
        id=uuid4(),
        account=strategy.account,
        strategy=strategy,
        client_order_id=new.client_order_id or f"ord-{uuid4()}",
        fingerprint=new.fingerprint,
        symbol=new.symbol,
        side=new.side,
        qty=new.qty,
        type=new.type,
        time_in_force=new.time_in_force,
        extended_hours=new.extended_hours,
        reduce_only=new.reduce_only,
        reference_price=new.reference_price,
        limit_price=limit_price,
        stop_price=new.stop_price,
        trail_price=new.trail_price,
        trail_percent=new.trail_percent,
    )


def worst_price(order: Order, limits: Limits, ask: Decimal | None = None) -> Decimal | None:
    return pricing.worst_price(
        side=order.side,
        type=order.type,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        trail_price=order.trail_price,
        trail_percent=order.trail_percent,
        reference_price=ask or order.reference_price,
        max_slippage_pct=limits.max_slippage_pct,
    )


def _store(
    order: Order,
    children: list[Order],
    judged: Judged,
    account: BrokerAccount,
    *,
    actor: str,
) -> None:
    if judged.violations:
        denied(order, judged, actor=actor)
        return
    if judged.intent.qty != order.qty:
        order.requested_qty, order.qty = order.qty, judged.intent.qty
    mark(order, judged, account)
    order.created_at = order.judged_at = order.submitted_at = account.database_time
    order.attempts = 1
    lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, actor))
    failpoint("submit.recorded")
    for each in children:
        lifecycle.record_intent(each, statuses.WAITING, Origin(Source.API, actor))
    failpoint("submit.before_commit")


def violations_out(violations: Iterable[Violation]) -> list[dict[str, str]]:
    """As API.md tells them, and as an order keeps them."""
    return [
        {
            "code": violation.code,
            "message": violation.message,
            "limit": plain(violation.limit),
            "actual": plain(violation.actual),
        }
        for violation in violations
    ]


def mark(order: Order, judged: Judged, account: BrokerAccount) -> None:
    """Notes on an order that passed, and is about to be stored, what it was judged by and what it
    ties up; and, the breaker being half-open, that it is the one that tries."""
    order.verdict = judged.verdict
    if sells_short(judged.intent, judged.context):
        order.sells_short, order.worst_price = True, judged.intent.worst_price
    if judged.tries:
        trading.claim_probe(account, order.pk)


def denied(order: Order, judged: Judged, *, actor: str) -> None:
    """Stores an order that our own checks refuse, with every reason."""
    violations, order.verdict = judged.violations, judged.verdict
    order.violations = violations_out(violations)
    reason = "; ".join(violation.message for violation in violations)
    lifecycle.record_intent(order, statuses.DENIED, Origin(Source.RISK, actor, reason))
