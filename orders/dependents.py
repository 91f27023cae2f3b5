"""Sends dependent orders when their time has come, and closes those whose time never will (O9).

A dependent order is sent only when the broker itself has confirmed its parent's fill and lists the
shares as free; it is sized by what has filled. Woken where a fill is booked, and by a job; every
step is decided under the account's lock, so that any number of wakers send it once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

from django.db.models import Q

from orders import lifecycle, statuses
from orders.judgement import judge
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.sending import patience, send
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.failpoints import failpoint
from ordinis.numbers import plain
from risk.checks import Intent, Violation
from risk.figures import database_now
from risk.limits import in_force

log = logging.getLogger("ordinis.orders")

_EXITS = (Order.Role.TAKE_PROFIT, Order.Role.STOP_LOSS)
_AT_LEAST, _AT_MOST = timedelta(seconds=2), timedelta(seconds=60)
# A person hears of an exit that could not be sent for so long.
_PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class _Parent:
    """A parent with all that replaced it: one order as far as its dependents are concerned."""

    chain: Sequence[Order]

    @property
    def filled_qty(self) -> Decimal:
        return max(order.filled_qty for order in self.chain)

    @property
    def is_open(self) -> bool:
        """Also while what replaced it is not known yet."""
        known = {order.replaces_id for order in self.chain}
        return any(
            order.is_open or (order.status == statuses.REPLACED and order.pk not in known)
            for order in self.chain
        )

    @property
    def moved_at(self) -> datetime:
        return max(order.updated_at for order in self.chain)


def due(now: datetime) -> list[UUID]:
    """Parents (by id) that have dependents waiting which may be sent or closed now."""
    waiting = Order.objects.filter(
        Q(retry_at=None) | Q(retry_at__lte=now), status=statuses.WAITING
    ).filter(Q(parent__filled_qty__gt=0) | Q(parent__status__in=sorted(statuses.CLOSED)))
    parents = waiting.order_by("parent").values_list("parent", flat=True).distinct()[:500]
    return [parent for parent in parents if parent is not None]


def advance(order_id: UUID) -> None:
    """Sends or closes what waits for this order, or for one of its chain."""
    parent = _parent(order_id)
    waiting = _waiting(parent)
    if not waiting:
        return
    account = waiting[0].account
    if not parent.is_open and not parent.filled_qty:
        _close(waiting, "Its parent ended with nothing filled.")
        return
    at_end = account.dependents_activation == BrokerAccount.DependentsActivation.AT_END
    if not parent.filled_qty or (parent.is_open and at_end):
        return
    try:
        if not _is_confirmed(account, parent):
            _put_off(waiting, parent, "The broker does not confirm the fill.")
            return
        parent = _parent(order_id)  # the broker's word may have moved it
        for group in _groups(waiting):
            _activate(account, parent, group)
    except (BrokerUnavailable, BrokerRefused) as error:
        log.warning("dependents wait", extra={"order": str(order_id), "error": error.message})
        _put_off(waiting, parent, f"The broker could not be asked: {error.message}")


def _parent(order_id: UUID) -> _Parent:
    chain = Order.objects.filter(pk=order_id).values("chain")
    return _Parent(list(Order.objects.filter(chain__in=chain).order_by("created_at")))


def _waiting(parent: _Parent) -> list[Order]:
    return list(
        Order.objects.select_related("account", "strategy")
        .filter(parent__in=parent.chain, status=statuses.WAITING)
        .order_by("created_at", "role")
    )


def _groups(waiting: list[Order]) -> list[list[Order]]:
    """The take-profit and the stop-loss go together; every other goes alone."""
    exits = [order for order in waiting if order.role in _EXITS]
    exits.sort(key=lambda order: _EXITS.index(Order.Role(order.role)))
    others = [[order] for order in waiting if order.role not in _EXITS]
    return [exits, *others] if exits else others


def _is_confirmed(account: BrokerAccount, parent: _Parent) -> bool:
    """Whether the broker, asked for the parent itself, says that as much has filled as we think:
    a fill that only a message told of is not taken for one (2025-10-10)."""
    latest = max(parent.chain, key=lambda order: (order.filled_qty, order.created_at))
    if latest.broker_order_id is None:
        return False
    report = broker_for(account).order(latest.broker_order_id)
    if report is None:
        return False
    try:
        lifecycle.observe(latest.pk, report, Origin(Source.DEPENDENTS, "broker"))
    except lifecycle.MismatchedReport:
        return False
    return report.filled_qty >= parent.filled_qty or latest.executions_only


def _activate(account: BrokerAccount, parent: _Parent, group: list[Order]) -> None:
    """Sends one order, or one pair, for the shares that have filled and are not covered yet."""
    first = group[0]
    shares = _uncovered(parent, first)
    if shares <= 0:
        if not parent.is_open:
            _close(group, "Every share that its parent filled is covered by another order.")
        return
    if first.role not in _EXITS and parent.is_open and shares < first.qty:
        return  # it goes whole, or when no more can come

    def conclude(locked: BrokerAccount, violations: list[Violation]) -> Order | None:
        if violations:
            _put_off(group, parent, "; ".join(violation.message for violation in violations))
            return None
        failpoint("dependents.judged")
        still = {order.pk for order in _waiting(parent)}
        if any(order.pk not in still for order in group) or _uncovered(parent, first) != shares:
            return None  # another waker was faster
        return _release(group, shares, locked, split=parent.is_open and shares < first.qty)

    intent = Intent(
        symbol=first.symbol,
        side=first.side,
        qty=min(shares, first.qty),
        limit_price=first.worst_price or Decimal(0),
    )
    limits = in_force(account.pk, first.strategy_id)
    released = judge(account, intent, limits, conclude, fresh=True)
    if released is not None:
        end_alert(account.pk, code="dependent_waiting", subject=str(first.pk))
        failpoint("dependents.committed")
        send(released, sent_by=patience())


def _uncovered(parent: _Parent, order: Order) -> Decimal:
    """Shares that have filled and that no order of this kind has been sent for."""
    sent = Order.objects.filter(parent__in=parent.chain, replaces=None).exclude(
        Q(status=statuses.WAITING) | Q(submitted_at=None)
    )
    kind = Q(role=order.role) if order.role in _EXITS else ~Q(role__in=_EXITS)
    covered = sum((row.qty for row in sent.filter(kind)), Decimal(0))
    return parent.filled_qty - covered


def _release(group: list[Order], shares: Decimal, locked: BrokerAccount, *, split: bool) -> Order:
    """Makes the order, or the pair with the stop-loss as leg, `submitting`."""
    why = f"{plain(shares)} shares of its parent have filled."
    changes = {
        "qty": min(shares, group[0].qty),
        "judged_at": locked.database_time,
        "submitted_at": locked.database_time,
        "attempts": 1,
        "retry_at": None,
    }
    if split:
        group = [_split_off(order, shares) for order in group]
    head, *legs = group
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
    )
    failpoint("dependents.released")
    return released


def _split_off(order: Order, shares: Decimal) -> Order:
    """A part of a waiting order as an order of its own; the rest waits on."""
    part = Order.objects.select_related("account", "strategy").get(pk=order.pk)
    part.pk, part._state.adding = uuid4(), True
    part.client_order_id = f"{order.role}-{uuid4()}"
    part.qty, part.history_length, part.history_hash = shares, 0, ""
    why = f"{plain(shares)} of {plain(order.qty)} shares, as the parent fills."
    lifecycle.record_intent(part, statuses.WAITING, Origin(Source.DEPENDENTS, "dependents", why))
    Order.objects.filter(pk=order.pk).update(qty=order.qty - shares)
    return part


def _put_off(group: Sequence[Order], parent: _Parent, why: str) -> None:
    """Tries again later: the longer it has been in vain, the less often."""
    now = database_now()
    waited = now - parent.moved_at
    retry_at = now + min(max(waited / 2, _AT_LEAST), _AT_MOST)
    ids = [order.pk for order in group]
    Order.objects.filter(pk__in=ids, status=statuses.WAITING).update(retry_at=retry_at)
    if waited < _PATIENCE:
        return
    for order in group:
        raise_alert(
            order.account_id,
            code="dependent_waiting",
            subject=str(order.pk),
            severity=Alert.Severity.CRITICAL,
            message=(
                f"The {order.get_role_display().lower()} {order.client_order_id} "
                f"({order.symbol}) can't be sent since its parent filled: {why} "
                "It is tried again; cancel it if the shares are gone."
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
        end_alert(order.account_id, code="dependent_waiting", subject=str(order.pk))
