"""Decides what a difference is at this look: a suspect, a break, or neither yet. Writes nothing.

It must be seen twice, ten seconds apart, with nothing of its subject moving in between: a fill on
its way looks just like a drift. Before it becomes a break the one position or order is asked for by
itself. Called only by a run, which is alone on its account.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum

from django.conf import settings
from django.contrib.postgres.aggregates import BoolOr
from django.db.models import Max, Q

from orders import statuses
from orders.models import Order
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.port import TERMINAL_STATUSES
from positions.models import Position
from reconciliation import singly
from reconciliation.facts import ZERO, Found
from reconciliation.models import OF_ACCOUNT, OF_POSITIONS, Break, Kind, Suspect

# Without a quiet moment for this long it is a break all the same, that nothing corrects by itself.
_RESTLESS = timedelta(minutes=5)
# The very same difference at so many looks is no fill on its way, although both sides move.
_STEADY_LOOKS = 3
# Orders carry the time of the process that moved them, looks that of the database.
_CLOCKS_DIFFER = timedelta(seconds=1)
# A healed break that comes back within this time is the same one.
_SAME_AGAIN = timedelta(days=1)
_LOOK_UPS = 20


class Verdict(Enum):
    """What becomes of a difference at this look."""

    SUSPECT = "suspect"
    WAIT = "wait"
    OPEN = "opened"
    REOPEN = "reopened"
    AGAIN = "seen_again"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One difference and what becomes of it."""

    item: Found
    verdict: Verdict
    suspect: Suspect | None = None
    row: Break | None = None
    quiet: bool = True
    # The subject moved, or could not be confirmed: the quiet time begins anew.
    moved: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that this look would do; carrying it out is another step."""

    steps: list[Step]
    heals: list[Break]
    forgets: list[Suspect]
    now: datetime


def plan(
    account: BrokerAccount,
    found: list[Found],
    now: datetime,
    *,
    uncompared: frozenset[str] = frozenset(),
) -> Plan:
    """Decides, and asks the broker for each position or order by itself that would become a break.
    Writes nothing. What is `uncompared` neither heals nor is forgotten."""
    standing = {
        row.subject: row
        for row in Break.objects.filter(account=account, ended_at=None).exclude(
            Q(subject__startswith="bust/") | Q(subject__startswith="overfill/")
        )
    }
    suspects = {row.subject: row for row in Suspect.objects.filter(account=account)}
    seen = {item.subject for item in found} | uncompared
    # Of so much at once nothing is concluded from single ones, new or known.
    massed = any(item.kind == Kind.MASS for item in found)
    if massed:
        found = [item for item in found if item.kind == Kind.MASS]
    moves = _Moves(account, suspects.values(), now)
    again = _healed_lately(account, [i.subject for i in found if i.subject not in standing], now)
    steps = [
        Step(item=item, verdict=Verdict.AGAIN, row=standing[item.subject])
        if item.subject in standing
        else _look(item, suspects.get(item.subject), again.get(item.subject), moves, now)
        for item in found
    ]
    return Plan(
        steps=_confirmed(account, steps),
        heals=_healed(
            account,
            [row for subject, row in standing.items() if subject not in seen and not massed],
        ),
        forgets=[row for subject, row in suspects.items() if subject not in seen and not massed],
        now=now,
    )


class _Moves:
    """When orders last moved, by symbol and by order: one query for all suspects."""

    def __init__(self, account: BrokerAccount, suspects: Iterable[Suspect], now: datetime) -> None:
        oldest = min((row.quiet_since for row in suspects), default=now) - _CLOCKS_DIFFER
        unproved = Q(status__in=sorted(statuses.UNPROVED))
        rows = (
            Order.objects.filter(Q(updated_at__gte=oldest) | unproved, account=account)
            .order_by()
            .values_list("symbol", "broker_order_id")
            .annotate(last=Max("updated_at"), is_unproved=BoolOr(unproved))
        )
        self._last: dict[str, datetime] = {}
        self._unproved: set[str] = set()
        for symbol, broker_order_id, last, is_unproved in rows:
            for key in (symbol, f"order/{broker_order_id}"):
                self._last[key] = max(last, self._last.get(key, last))
            if is_unproved:
                self._unproved.add(symbol)

    def is_unproved(self, item: Found) -> bool:
        """Whether an order of the symbol may hide a move."""
        if item.kind in OF_ACCOUNT:
            return bool(self._unproved)
        return item.symbol in self._unproved

    def since(self, item: Found, moment: datetime) -> bool:
        if self.is_unproved(item):
            return True
        if item.kind in OF_ACCOUNT:
            return any(last >= moment - _CLOCKS_DIFFER for last in self._last.values())
        key = item.symbol if item.kind in OF_POSITIONS else item.subject
        last = self._last.get(key)
        return last is not None and last >= moment - _CLOCKS_DIFFER


def _healed_lately(account: BrokerAccount, subjects: list[str], now: datetime) -> dict[str, Break]:
    rows = Break.objects.filter(
        account=account,
        subject__in=subjects,
        status=Break.Status.HEALED,
        ended_at__gte=now - _SAME_AGAIN,
    )
    return {row.subject: row for row in rows.order_by("ended_at")}


def _look(
    item: Found, suspect: Suspect | None, ended: Break | None, moves: _Moves, now: datetime
) -> Step:
    if suspect is None:
        return Step(item=item, verdict=Verdict.SUSPECT)
    wait = timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    same = _is_the_same(suspect, item)
    still = same and not moves.since(item, suspect.quiet_since)
    verdict = Verdict.REOPEN if ended is not None else Verdict.OPEN
    if item.kind == Kind.MASS:
        # So much differs that no order of ours is the cause: looked at twice, no more.
        if now - suspect.first_seen >= wait:
            return Step(item=item, verdict=verdict, suspect=suspect, row=ended)
        return Step(item=item, verdict=Verdict.WAIT, suspect=suspect)
    if still and now - suspect.quiet_since >= wait:
        return Step(item=item, verdict=verdict, suspect=suspect, row=ended)
    steady = (
        suspect.difference == item.difference
        and suspect.steady_looks + 1 >= _STEADY_LOOKS
        and now - suspect.steady_since >= 2 * wait
        and not moves.is_unproved(item)
    )
    restless = now - suspect.first_seen >= _RESTLESS and item.kind != Kind.CASH
    if steady or restless:
        return Step(item=item, verdict=verdict, suspect=suspect, row=ended, quiet=False)
    return Step(item=item, verdict=Verdict.WAIT, suspect=suspect, moved=not still)


def _is_the_same(suspect: Suspect, item: Found) -> bool:
    if suspect.kind != item.kind:
        return False
    if item.kind == Kind.ORDER_EXTERNAL:
        return True  # it is there, however much of it is left
    if item.kind == Kind.BUYING_POWER:
        return (suspect.difference > 0) == (item.difference > 0)  # it moves with every price
    return (suspect.local, suspect.broker) == (item.local, item.broker)


def _confirmed(account: BrokerAccount, steps: list[Step]) -> list[Step]:
    """Lists can leave out what is there: what would become a break is asked for by itself. Where
    that says something else the difference stays a suspect."""
    broker, asked, result = broker_for(account), 0, []
    for step in steps:
        item = step.item
        if step.verdict not in (Verdict.OPEN, Verdict.REOPEN) or item.kind in OF_ACCOUNT:
            result.append(step)
            continue
        if asked == _LOOK_UPS:  # the others at the next look
            result.append(replace(step, verdict=Verdict.WAIT, row=None))
            continue
        asked += 1
        agrees = True
        if item.kind in OF_POSITIONS:
            qty = singly.shares(broker, item.symbol)
            agrees = qty is None or agrees_with(item, qty)
            if qty is None:
                step = replace(step, quiet=False)
        elif item.kind == Kind.ORDER_EXTERNAL:
            order = broker.order(item.broker_order_id)
            agrees = order is not None and order.status not in TERMINAL_STATUSES
        if not agrees:
            step = replace(step, verdict=Verdict.WAIT, row=None, moved=True)
        result.append(step)
    return result


def agrees_with(item: Found, qty: Decimal) -> bool:
    """Whether a position asked for by itself says what the list said."""
    return item.kind == Kind.AVERAGE_PRICE or qty == item.broker


def _healed(account: BrokerAccount, rows: list[Break]) -> list[Break]:
    """Of what only the broker has a list that leaves it out looks like an end: each is asked for
    by itself, and stands while it is there."""
    alone = [row for row in rows if row.kind in (Kind.ORPHAN, Kind.ORDER_EXTERNAL)]
    still = {row.pk for row in alone[_LOOK_UPS:]}  # these at the next look
    ours = dict(
        Position.objects.filter(
            account=account, symbol__in=[row.symbol for row in alone]
        ).values_list("symbol", "qty")
    )
    broker = broker_for(account)
    for row in alone[:_LOOK_UPS]:
        if row.kind == Kind.ORPHAN:
            qty = singly.shares(broker, row.symbol)
            there = bool(qty) and qty != ours.get(row.symbol, ZERO)
        else:
            order = broker.order(row.broker_order_id)
            there = (
                order is not None
                and order.status not in TERMINAL_STATUSES
                and not Order.objects.filter(
                    account=account, broker_order_id=row.broker_order_id
                ).exists()
            )
        if there:
            still.add(row.pk)
    return [row for row in rows if row.pk not in still]
