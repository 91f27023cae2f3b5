"""Sends dependent orders when their time has come, and closes those whose time never will (O9).

A dependent order is sent only when the broker itself has confirmed its parent's fill and lists the
shares as free; it is sized by what has filled. Woken where a fill is booked, and by a job; every
step is decided under the account's lock, so that any number of wakers send it once.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from django.db.models import F, Q

from orders import assets, lifecycle, statuses
from orders.chains import Chain, lines
from orders.judgement import Judged, Question, judge
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.sending import patience, send
from orders.submission import mark
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from risk.checks import Intent, reduces
from risk.figures import database_now
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.orders")

_EXITS = (Order.Role.TAKE_PROFIT, Order.Role.STOP_LOSS)
_AT_END = RiskLimits.DependentsActivation.AT_END
_AT_LEAST, _AT_MOST = timedelta(seconds=2), timedelta(seconds=60)
# A person hears of an exit that could not be sent for so long.
_PATIENCE = timedelta(seconds=60)
_ALERT = "dependent_waiting"


def due(now: datetime) -> list[UUID]:
    """Parents (by id) that have dependents waiting which may be sent or closed now."""
    waiting = Order.objects.filter(
        Q(retry_at=None) | Q(retry_at__lte=now), status=statuses.WAITING
    ).filter(Q(parent__filled_qty__gt=0) | Q(parent__status__in=sorted(statuses.CLOSED)))
    parents = waiting.order_by("parent").values_list("parent", flat=True).distinct()[:500]
    return [parent for parent in parents if parent is not None]


def advance(order_id: UUID) -> None:
    """Sends or closes what waits for this order, or for one of its chain."""
    parent = Chain.of(order_id)
    waiting = _waiting(parent)
    if not waiting:
        return
    account = waiting[0].account
    groups = _groups(waiting)
    if parent.is_open:
        if in_force(account.pk).dependents_activation == _AT_END:
            return
        groups = [group for group in groups if _wanted(parent, parent.filled_qty, group)]
        if not groups:
            return
    try:
        filled = _confirmed(account, parent)
        if filled is None:
            _put_off(waiting, parent, "The broker does not bear out what we know of its parent.")
        elif filled:
            for group in groups:
                _activate(account, parent, filled, group)
        elif not parent.is_open:
            _close(waiting, "Its parent ended with nothing filled.")
    except (BrokerUnavailable, BrokerRefused) as error:
        log.warning("dependents wait", extra={"order": str(order_id), "error": error.message})
        _put_off(waiting, parent, f"The broker could not be asked: {error.message}")


def end_alerts() -> None:
    """Ends what was told of orders that wait no longer, however that came."""
    for alert in Alert.objects.filter(code=_ALERT, ended_at=None):
        order = Order.objects.filter(pk=alert.subject, account=alert.account_id).first()
        if order is None or order.status not in statuses.UNSENT | statuses.UNPROVED:
            end_alert(alert.account_id, code=_ALERT, subject=alert.subject)


def _waiting(parent: Chain) -> list[Order]:
    """Those that were sent and came back first."""
    return list(
        Order.objects.select_related("account", "strategy")
        .filter(parent__in=parent.orders, status=statuses.WAITING)
        .order_by(F("judged_at").asc(nulls_last=True), "created_at", "pk")
    )


def _groups(waiting: list[Order]) -> list[list[Order]]:
    """A take-profit and the stop-loss for the same shares go together; every other goes alone.
    There are several pairs where one was sent as its parent filled, and came back."""
    profits, stops = ([order for order in waiting if order.role == role] for role in _EXITS)
    groups = []
    for profit in profits:
        stop = next((order for order in stops if order.qty == profit.qty), None)
        if stop is None:
            groups.append([profit])
        else:
            stops.remove(stop)
            groups.append([profit, stop])
    others = [order for order in waiting if order.role not in _EXITS]
    return groups + [[order] for order in (*stops, *others)]


def _confirmed(account: BrokerAccount, parent: Chain) -> Decimal | None:
    """Shares that have filled, by the broker's own answer for the parent itself; None where it
    says less than we believe: a fill or an end that only a message told of is not taken for one
    (2025-10-10)."""
    last = parent.last
    if last.broker_order_id is None:  # it never came to be
        return None if parent.filled_qty else Decimal(0)
    report = broker_for(account).order(last.broker_order_id)
    if report is None:
        return None
    try:
        told = lifecycle.observe(last.pk, report, Origin(Source.DEPENDENTS, "broker"))
    except lifecycle.MismatchedReport:
        return None
    if statuses.is_open(report.status) and not parent.is_open:
        return None
    taken_back = any(order.executions_only for order in parent.orders)
    if report.filled_qty < parent.filled_qty and not taken_back:
        return None
    return min(report.filled_qty, told.filled_qty)


def _activate(account: BrokerAccount, parent: Chain, filled: Decimal, group: list[Order]) -> None:
    """Sends one order, or one pair, for the shares that have filled and are not covered yet."""
    first = group[0]
    shares = _wanted(parent, filled, group)
    if not shares:
        if not parent.is_open:
            _close(group, "Every share that its parent filled is covered by another order.")
        return

    def conclude(locked: BrokerAccount, judged: Judged) -> Order | None:
        if judged.violations:
            why = "; ".join(violation.message for violation in judged.violations)
            _put_off(group, parent, why)
            return None
        if parent.orders[0].sells_short and not reduces(judged.intent, judged.context):
            # What was sold short is not short any more, or not yet: it must open nothing.
            _put_off(group, parent, "The broker holds no such short position that is free.")
            return None
        failpoint("dependents.judged")
        still = {(order.pk, order.qty) for order in _waiting(parent)}
        if any((order.pk, order.qty) not in still for order in group):
            return None  # another waker was faster
        if _wanted(parent, filled, group) != shares:
            return None
        rest = _most(parent, first) - shares if parent.is_open else Decimal(0)
        return _release(group, shares, locked, judged, rest=rest)

    intent = Intent(
        symbol=first.symbol,
        side=first.side,
        qty=shares,
        worst_price=max(order.worst_price or Decimal(0) for order in group),
        type=first.type,
        time_in_force=first.time_in_force,
        limit_price=first.limit_price,
        is_pair=len(group) > 1,
        is_dependent=True,
    )
    question = Question(
        account=account,
        intent=intent,
        limits=in_force(account.pk, first.strategy_id),
        order_id=first.pk,
        strategy_id=first.strategy_id,
        asset=assets.asset_of(account, first.symbol),
    )
    released = judge(question, conclude, fresh=True)
    if released is None:
        return
    failpoint("dependents.committed")
    pair = [released, *released.legs.all()]
    if send(released, sent_by=patience()).status == statuses.WAITING:
        _put_off(pair, parent, released.history.latest("seq").reason)


def _wanted(parent: Chain, filled: Decimal, group: list[Order]) -> Decimal:
    """Shares to send them for now: of those that have filled what is not covered yet. While more
    may come only a take-profit, alone or with its stop-loss, goes in parts: beside an open order
    on the other side the broker takes no stop that stands alone."""
    first = group[0]
    most = _most(parent, first)
    shares = min(filled - _covered(parent, first), most)
    is_whole = shares == most or not parent.is_open
    if shares <= 0 or not (is_whole or first.role == Order.Role.TAKE_PROFIT):
        return Decimal(0)
    return shares


def _most(parent: Chain, order: Order) -> Decimal:
    """Shares that it is for. Exits are for all of the parent, also when that was replaced by a
    larger one, but for what was split off."""
    if order.role not in _EXITS or order.judged_at is not None:
        return order.qty
    parts = Order.objects.filter(
        parent__in=parent.orders, role=order.role, replaces=None, judged_at__isnull=False
    )
    return parent.qty - sum((part.qty for part in parts), Decimal(0))


def _covered(parent: Chain, order: Order) -> Decimal:
    """Shares of the parent that other orders have sold or may still sell. Shares that have had
    their exits get no second ones, whatever became of the first."""
    sent = (
        Order.objects.select_related("leg_of")
        .filter(parent__in=parent.orders, submitted_at__isnull=False)
        .exclude(status=statuses.WAITING)
    )
    is_exit = order.role in _EXITS
    return sum(
        (line.qty if is_exit and line.role in _EXITS else line.held_qty for line in lines(sent)),
        Decimal(0),
    )


def _release(
    group: list[Order],
    shares: Decimal,
    locked: BrokerAccount,
    judged: Judged,
    *,
    rest: Decimal,
) -> Order:
    """Makes the order, or the pair with the stop-loss as leg, `submitting`; a part of it where the
    `rest` may still come."""
    why = f"Its parent has filled; {plain(shares)} of those shares are for this order."
    changes = {
        "qty": shares,
        "judged_at": locked.database_time,
        "submitted_at": locked.database_time,
        "attempts": 1,
        "lookups_missed": 0,
        "first_missed_at": None,
        "retry_at": None,
        "verdict": judged.verdict,
    }
    if rest:
        group = [_split_off(order, shares, rest) for order in group]
    head, *legs = group
    mark(head, judged, locked)
    for leg in legs:
        lifecycle.transition(
            leg.pk,
            statuses.SUBMITTING,
            Origin(Source.DEPENDENTS, "dependents", why),
            **changes,
            leg_of=head,
        )
    pair = {"order_class": "oco"} if legs else {}
    released = lifecycle.transition(
        head.pk,
        statuses.SUBMITTING,
        Origin(Source.DEPENDENTS, "dependents", why),
        **changes,
        **pair,
        sells_short=head.sells_short,
        worst_price=head.worst_price,
    )
    failpoint("dependents.released")
    return released


def _split_off(order: Order, shares: Decimal, rest: Decimal) -> Order:
    """A part of a waiting order as an order of its own; the rest waits on."""
    part = Order.objects.select_related("account", "strategy").get(pk=order.pk)
    part.pk, part._state.adding = uuid4(), True
    part.client_order_id = f"{order.role}-{uuid4()}"
    part.qty, part.history_length, part.history_hash = shares, 0, ""
    why = f"{plain(shares)} of {plain(shares + rest)} shares, as the parent fills."
    lifecycle.record_intent(part, statuses.WAITING, Origin(Source.DEPENDENTS, "dependents", why))
    Order.objects.filter(pk=order.pk).update(qty=rest)
    return part


def _put_off(group: Sequence[Order], parent: Chain, why: str) -> None:
    """Tries again later: the longer it has been in vain, the less often."""
    now = database_now()
    waited = now - max(parent.moved_at, *(order.created_at for order in group))
    retry_at = now + min(max(waited / 2, _AT_LEAST), _AT_MOST)
    for pk in sorted(order.pk for order in group):  # as all locks of orders are taken
        Order.objects.filter(pk=pk, status=statuses.WAITING).update(retry_at=retry_at)
    if waited < _PATIENCE:
        return
    for order in group:
        raise_alert(
            order.account_id,
            code=_ALERT,
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"The {order.get_role_display().lower()} {order.client_order_id} "
                f"({order.symbol}) can't be sent: {why} It is tried again; cancel it if the shares "
                "are gone."
            ),
        )


def _close(group: Sequence[Order], why: str) -> None:
    for order in group:
        try:
            lifecycle.transition(
                order.pk, statuses.CANCELED, Origin(Source.DEPENDENTS, "dependents", why)
            )
        except statuses.InvalidTransition:
            continue  # sent, or closed, by another waker
