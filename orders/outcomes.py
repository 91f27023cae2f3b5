"""What became of an account's orders at the broker, read from their rows, for the circuit breaker
(SPEC K6): taken, refused, or sent and never answered.

Our own denials are none, nor is an order whose sender died: neither says anything of the broker.
Changes no order, and only reads the database.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery

from orders import statuses
from orders.models import Order, OrderHistory
from ordinis.accounts.models import BrokerAccount
from risk import breaker, trading
from risk.breaker import Distance, Outcome
from risk.figures import database_now
from risk.limit_values import Limits
from risk.limits import in_force
from risk.models import TradingControl

# An order that was sent and is still unresolved after this long has failed.
_UNRESOLVED_FOR: Final = timedelta(seconds=30)
# The order that tries gets so long to have an outcome; then another may.
_PROBE_PATIENCE: Final = timedelta(minutes=2)
# Failures in a row are looked for so far back; what is older is another day's.
_LOOKED_BACK: Final = timedelta(days=1)
# The newest of each kind: beyond them no share changes much.
_MOST: Final = 5000
_RESOLVER: Final = "resolver"  # the actor of what `orders.resolver` does


def outcomes_of(account_id: int, since: datetime) -> list[Outcome]:
    """Every order's outcome after a moment, oldest first."""
    now = database_now()
    found = [*_successes(account_id, since), *_failures(account_id, since, now)]
    return sorted(found, key=lambda outcome: outcome.at)


def judge_outcomes(account_id: int) -> None:
    """Tells the breaker what became of orders since it last dealt with them. Cheap where nothing
    failed and no order tries; safe to run twice at once."""
    now = database_now()
    control = TradingControl.objects.filter(account_id=account_id).first()
    if control is not None and control.probe is not None:
        _judge_probe(account_id, control.probe, now)
        return
    if control is not None and control.breaker != TradingControl.Breaker.CLOSED:
        return  # time decides, and then the order that tries
    failures = _failures(account_id, _counted_from(control, now), now)
    if failures:
        limits = in_force(account_id)
        outcomes = _with_successes(account_id, control, failures, limits, now)
        trading.note_outcomes(account_id, outcomes, limits)


def distances_of(account_id: int) -> list[Distance]:
    """How far the account is from each of the breaker's triggers, by what is stored."""
    now = database_now()
    account = BrokerAccount.objects.get(pk=account_id)
    control = TradingControl.objects.filter(account_id=account_id).first()
    limits = in_force(account_id)
    failures = _failures(account_id, _counted_from(control, now), now)
    return breaker.distances(
        _with_successes(account_id, control, failures, limits, now),
        equity=account.equity,
        session_equity=control.session_equity if control else None,
        buying_power=account.buying_power,
        limits=limits,
        now=now,
    )


def _counted_from(control: TradingControl | None, now: datetime) -> datetime:
    dealt_with = control.counted_from if control else None
    return max(now - _LOOKED_BACK, dealt_with or now - _LOOKED_BACK)


def _with_successes(
    account_id: int,
    control: TradingControl | None,
    failures: list[Outcome],
    limits: Limits,
    now: datetime,
) -> list[Outcome]:
    """The failures, and the successes that they are held against: those of the window, or in a
    slow hour the newest one, which ends a row of failures."""
    since = _counted_from(control, now)
    window = now - timedelta(seconds=limits.breaker_window_seconds)
    successes = _successes(account_id, max(since, window)) or _successes(account_id, since, most=1)
    return sorted([*failures, *successes], key=lambda outcome: outcome.at)


def _successes(account_id: int, since: datetime, *, most: int = _MOST) -> list[Outcome]:
    rows = _sent(account_id).filter(acknowledged_at__gt=since).exclude(status=statuses.REJECTED)
    newest = rows.order_by("-acknowledged_at").values_list("pk", "acknowledged_at")[:most]
    return [Outcome(at=at, failed=False, order_id=pk) for pk, at in newest if at is not None]


def _failures(account_id: int, since: datetime, now: datetime) -> list[Outcome]:
    # One counts only some time after it became unresolved: it may have done so before `since`.
    changed_after = since - _UNRESOLVED_FOR
    rows = _with_who_lost_it(_sent(account_id)).filter(
        status__in=sorted(statuses.UNSUCCESSFUL), updated_at__gt=changed_after
    )
    outcomes = (_failure(row, now) for row in rows.order_by("-updated_at")[:_MOST])
    return [outcome for outcome in outcomes if outcome is not None and outcome.at > since]


def _sent(account_id: int) -> QuerySet[Order]:
    """Orders that we sent: not what was found at the broker. A pair is sent as one order."""
    return Order.objects.filter(account_id=account_id, attempts__gt=0, leg_of=None)


def _with_who_lost_it(rows: QuerySet[Order]) -> QuerySet[Order]:
    """With the actor of the last step to `unresolved`: the resolver, where the sender had died."""
    lost = OrderHistory.objects.filter(order=OuterRef("pk"), to_status=statuses.UNRESOLVED)
    steps = lost.exclude(from_status=statuses.UNRESOLVED).order_by("-seq")
    return rows.annotate(lost_by=Subquery(steps.values("actor")[:1]))


def _failure(order: Order, now: datetime) -> Outcome | None:
    """What an order that was refused or never answered says of the broker; None when (not yet)
    anything."""
    if order.status == statuses.REJECTED:
        message = str((order.rejection or {}).get("message") or "The broker rejected it later.")
        return Outcome(
            at=order.updated_at,
            failed=True,
            order_id=order.pk,
            funds=breaker.is_for_funds(message),
            message=message,
        )
    if order.submitted_at is None or order.lost_by == _RESOLVER:  # type: ignore[attr-defined]
        return None
    at = order.submitted_at + _UNRESOLVED_FOR
    if order.status == statuses.FAILED and order.updated_at < at:
        if order.cancel_requested_at is not None:
            return None  # given up early, because nobody wanted it any more
        at = order.updated_at
    if at > now:
        return None
    return Outcome(at=at, failed=True, order_id=order.pk, message="The broker never answered.")


def _judge_probe(account_id: int, order_id: UUID, now: datetime) -> None:
    """The order that tries decides by its outcome; one that ended without any makes room."""
    order = _with_who_lost_it(Order.objects.filter(pk=order_id)).first()
    outcome = _outcome(order, now) if order else None
    if outcome is not None:
        trading.note_outcomes(account_id, [outcome], in_force(account_id))
    elif order is None:
        trading.free_probe(account_id, order_id, f"Order {order_id} was never stored.")
    elif order.status not in statuses.UNPROVED:
        trading.free_probe(
            account_id, order_id, f"Order {order_id} ended as {order.status} without an answer."
        )
    elif now - (order.judged_at or order.created_at) > _PROBE_PATIENCE:
        trading.free_probe(account_id, order_id, f"Order {order_id} stays undecided for too long.")


def _outcome(order: Order, now: datetime) -> Outcome | None:
    if order.status in statuses.UNSUCCESSFUL:
        return _failure(order, now)
    if order.acknowledged_at is not None:
        return Outcome(at=order.acknowledged_at, failed=False, order_id=order.pk)
    return None
