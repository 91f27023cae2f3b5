"""One reconciliation of one account: read the broker, compare, keep what was found.

Nothing is concluded from an incomplete answer. Never two at once for one account, in however
many processes; who asks during a run gets the next one's report. Changes nothing at the broker,
and nothing in the ledger but what the account's limits let it correct by itself.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import OperationalError, connection
from django.db.models import Q
from django.db.models.functions import Now

from orders import statuses
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerError
from ordinis.numbers import plain
from positions.ledger import cash_of
from positions.models import Position
from reconciliation import breaks, causes, looks, order_breaks, outside, snapshots
from reconciliation.compare import BUYING_POWER, CASH, compare, uncompared
from reconciliation.facts import Baseline, Book, BookOrder, BookPosition, Found
from reconciliation.models import (
    OF_ORDERS,
    AccountWatch,
    Break,
    Correction,
    Kind,
    ReconciliationReport,
    Snapshot,
)
from reconciliation.words import explained
from risk import figures
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.reconciliation")

_LOCK_CLASS = 0x0D15  # of PostgreSQL's advisory locks: "reconciling", then the account's id
_LONGEST_WAIT = 50  # seconds
# So many incomplete runs in a row are critical (SPEC R11).
_FAILURES = 3
# A report names no more differences than this; it counts all.
_SHOWN = 500
# Another activity may explain these.
_MAY_BE_EXPLAINED = frozenset({Kind.CASH, Kind.SPLIT, Kind.QUANTITY, Kind.ORPHAN, Kind.ZOMBIE})


class Busy(Exception):
    """Another comparison of the account has been under way for too long to wait for it."""


def reconcile(
    account: BrokerAccount, *, dry_run: bool = False, source: str = "clock", actor: str = ""
) -> ReconciliationReport:
    """Compares book and broker and stores the report. A failed read makes an incomplete report,
    never an exception. Raises Busy."""
    asked_at = figures.database_now()
    with alone(account):
        if (shared := _begun_since(account, asked_at, dry_run=dry_run)) is not None:
            return shared
        return _run(account, dry_run=dry_run, source=source, actor=actor)


@contextmanager
def alone(account: BrokerAccount) -> Iterator[None]:
    """Waits for a run that is under way. The lock dies with its process. Raises Busy."""
    with connection.cursor() as cursor:
        try:
            cursor.execute("SET lock_timeout = %s", [f"{_LONGEST_WAIT}s"])
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", (_LOCK_CLASS, account.pk))
        except OperationalError as error:
            raise Busy(
                f"Another comparison of {account} has been under way for more than "
                f"{_LONGEST_WAIT} s: the broker answers slowly. Try again in a minute."
            ) from error
        finally:
            cursor.execute("SET lock_timeout TO DEFAULT")
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", (_LOCK_CLASS, account.pk))


def _begun_since(
    account: BrokerAccount, moment: datetime, *, dry_run: bool
) -> ReconciliationReport | None:
    """A run that began after somebody asked is his answer, too: all who wait share the next."""
    return ReconciliationReport.objects.filter(
        account=account, started_at__gte=moment, dry_run=dry_run
    ).first()


def _run(account: BrokerAccount, *, dry_run: bool, source: str, actor: str) -> ReconciliationReport:
    started, started_at = time.monotonic(), figures.database_now()
    limits = in_force(account.pk)
    report = ReconciliationReport(
        account=account,
        mode=limits.reconcile_mode,
        dry_run=dry_run,
        source=source,
        actor=actor,
        started_at=started_at,
        complete=True,
    )
    try:
        taken = snapshots.take(account, dry_run=dry_run)
        report.broker_seconds = Decimal(f"{taken.broker_seconds:.3f}")
        found, taken = _compare(account, taken, dry_run=dry_run)
        open_questions = uncompared(read_book(account, taken), taken.facts, found)
        made = looks.plan(account, found, taken.figures.asked_at, uncompared=open_questions)
    except BrokerError as error:
        report.complete, report.reason = False, error.message
        report.snapshot = Snapshot.objects.create(
            account=account, asked_at=started_at, complete=False, reason=error.message
        )
    else:
        report.snapshot = taken.row
        _describe(report, account, found, taken)
        if dry_run or limits.reconcile_mode == RiskLimits.ReconcileMode.OFF:
            report.actions = _would(made)
        else:
            done = breaks.carry_out(account, made, taken)
            report.actions = done.actions[:_SHOWN]
            order_breaks.take_in(account, taken.figures.asked_at)
        report.actions = [*report.actions, *_left_out(open_questions)]
        if not dry_run:
            _remember(account, taken, found)
            _end_missing(account, taken)
    report.pending_approval_count = Correction.objects.filter(
        account=account, status=Correction.Status.PROPOSED
    ).count()
    report.order_breaks = [*report.order_breaks, *order_breaks.described(account)]
    report.duration_seconds = Decimal(f"{time.monotonic() - started:.3f}")
    _count_reconciled(report)
    report.save()
    if not dry_run:
        _tell(account, report)
    return report


# --- comparing ---------------------------------------------------------------------------------


def _compare(
    account: BrokerAccount, taken: snapshots.Taken, *, dry_run: bool
) -> tuple[list[Found], snapshots.Taken]:
    """Compares; where something differs that the broker's other activities may explain, these are
    read, and it is compared once more. A dry run goes by those that are known."""
    found = compare(read_book(account, taken), taken.facts)
    if dry_run or not any(item.kind in _MAY_BE_EXPLAINED for item in found):
        return found, taken
    if not outside.read_activities(account, taken.figures.asked_at):
        return found, taken
    since = taken.figures.asked_at - snapshots.EXPLAINS
    facts = replace(taken.facts, actions=causes.actions(account, since=since))
    taken = replace(taken, facts=facts)
    return compare(read_book(account, taken), facts), taken


def read_book(account: BrokerAccount, taken: snapshots.Taken) -> Book:
    """Our side, as of now: what the reading has brought is in it."""
    positions = Position.objects.filter(account=account).exclude(qty=0)
    return Book(
        positions={
            symbol: BookPosition(
                qty=qty, average_price=average, ledger_version=version, last_price=price
            )
            for symbol, qty, average, version, price in positions.values_list(
                "symbol", "qty", "average_price", "ledger_version", "broker_price"
            )
        },
        orders=_orders(account, taken),
        cash=_cash(account, taken),
        baseline=_baseline(account),
        known=frozenset(
            Break.objects.filter(account=account, ended_at=None).values_list("subject", flat=True)
        ),
    )


def _cash(account: BrokerAccount, taken: snapshots.Taken) -> Decimal | None:
    """With what a dry run has read and not booked."""
    booked = cash_of(account.pk)
    return None if booked is None else booked + taken.unbooked


def _orders(account: BrokerAccount, taken: snapshots.Taken) -> list[BookOrder]:
    listed = [order.broker_order_id for order in taken.facts.orders]
    rows = Order.objects.filter(
        Q(broker_order_id__in=listed) | ~Q(status__in=sorted(statuses.CLOSED)), account=account
    ).only(
        *("id", "client_order_id", "broker_order_id", "symbol", "side"),
        *("qty", "filled_qty", "status", "updated_at"),
    )
    return [
        BookOrder(
            id=order.pk,
            client_order_id=order.client_order_id,
            broker_order_id=order.broker_order_id,
            symbol=order.symbol,
            side=order.side,
            qty=order.qty,
            filled_qty=order.filled_qty,
            status=order.status,
            is_open=order.is_open,
            moved=order.updated_at >= taken.orders_asked_at - timedelta(seconds=1),
        )
        for order in rows
    ]


def _baseline(account: BrokerAccount) -> Baseline | None:
    watch = AccountWatch.objects.filter(account=account).first()
    if watch is None or watch.baseline is None or watch.baseline_at is None:
        return None
    settled = Break.objects.filter(
        account=account,
        subject=BUYING_POWER,
        status=Break.Status.RESOLVED,
        ended_at__gte=watch.baseline_at,
    )
    if settled.exists():  # a person has said that it is in order as it is
        return None
    return Baseline(**{name: Decimal(value) for name, value in watch.baseline.items()})


def _remember(account: BrokerAccount, taken: snapshots.Taken, found: list[Found]) -> None:
    asked_at = taken.figures.asked_at
    BrokerAccount.objects.filter(pk=account.pk).update(books_as_of=asked_at)
    standing = taken.facts.standing
    if standing is None or any(item.kind in (Kind.BUYING_POWER, Kind.MASS) for item in found):
        return  # what it is measured from stays until it agrees again
    AccountWatch.objects.filter(account=account).update(
        baseline_at=asked_at,
        baseline={
            "buying_power": plain(standing.buying_power),
            "equity": plain(standing.equity),
            "gross": plain(standing.gross),
            "reserved": plain(standing.reserved),
            "multiplier": plain(standing.multiplier),
        },
    )


def _end_missing(account: BrokerAccount, taken: snapshots.Taken) -> None:
    """Ends the alerts of orders that the broker knows (again), or that have ended meanwhile."""
    missing = taken.facts.missing
    still = [
        str(pk)
        for pk in Order.objects.filter(account=account, broker_order_id__in=missing).values_list(
            "pk", flat=True
        )
    ]
    Alert.objects.filter(account=account, code="order_missing", ended_at=None).exclude(
        subject__in=still
    ).update(ended_at=Now())


# --- reporting ---------------------------------------------------------------------------------


def _describe(
    report: ReconciliationReport,
    account: BrokerAccount,
    found: list[Found],
    taken: snapshots.Taken,
) -> None:
    single = [each for item in found for each in (item.members or (item,))]
    report.zombies = [item.symbol for item in single if item.kind == Kind.ZOMBIE]
    report.orphans = [item.symbol for item in single if item.kind == Kind.ORPHAN]
    report.quantity_drifts = [
        _drift(item) for item in single if item.kind in (Kind.QUANTITY, Kind.SIDE, Kind.SPLIT)
    ]
    report.order_breaks = [_order_drift(item) for item in single if item.kind in OF_ORDERS][:_SHOWN]
    report.differences_count = len(single)
    report.differences = [
        {
            "kind": str(item.kind),
            "subject": item.subject,
            "symbol": item.symbol,
            "local": item.local_status or plain(item.local),
            "broker": item.broker_status or plain(item.broker),
            "value": None if item.value is None else plain(item.value),
            "explanation": explained(item.explanation),
        }
        for item in [*(item for item in found if item.members), *single][:_SHOWN]
    ]
    held = Position.objects.filter(account=account, status=Position.Status.OPEN)
    report.compared_count = len(
        taken.facts.positions.keys() | set(held.values_list("symbol", flat=True))
    )
    report.critical_issues = [*_critical(found)][:_SHOWN]


def _drift(item: Found) -> dict[str, Any]:
    return {
        "kind": str(item.kind),
        "symbol": item.symbol,
        "local": plain(item.local),
        "broker": plain(item.broker),
        "difference": plain(item.difference),
    }


def _order_drift(item: Found) -> dict[str, Any]:
    return {
        **_drift(item),
        "order": None if item.order is None else str(item.order),
        "broker_order_id": item.broker_order_id,
        "local_status": item.local_status,
        "broker_status": item.broker_status,
    }


def _critical(found: list[Found]) -> Iterator[str]:
    for item in found:
        if item.kind == Kind.MASS:
            yield explained(item.explanation)
        if item.kind == Kind.SIDE:
            yield (
                f"{item.symbol}: our book says {plain(item.local)}, the broker "
                f"{plain(item.broker)}: one is long, the other short"
            )
        if item.kind == Kind.ORDER_MISSING:
            yield f"{item.symbol}: an order is open here that the broker does not know"
        for orphan in (*item.members, item):
            if orphan.kind == Kind.ORPHAN:
                yield (
                    f"{orphan.symbol}: the broker holds {plain(orphan.broker)} that we know "
                    "nothing of"
                )


def _would(made: looks.Plan) -> list[dict[str, Any]]:
    """What carrying the plan out would do, as far as it is known without doing it."""
    done = breaks.Done()
    for step in made.steps:
        done.add(step.item, step.verdict.value, explained(step.item.explanation))
    for row in made.heals:
        done.add(row, "healed")
    return done.actions[:_SHOWN]


def _left_out(open_questions: frozenset[str]) -> Iterator[dict[str, Any]]:
    """What this run could not say anything of."""
    if CASH in open_questions:
        yield {
            "subject": CASH,
            "symbol": "",
            "kind": str(Kind.CASH),
            "action": "not_compared",
            "words": (
                "Shares differ for a reason that is not known (cash is compared again once they "
                "agree), or the broker lists no fills."
            ),
        }


def _count_reconciled(report: ReconciliationReport) -> None:
    before = (
        ReconciliationReport.objects.filter(account=report.account, dry_run=False)
        .values_list("started_at", flat=True)
        .first()
    )
    applied = Correction.objects.filter(
        account=report.account, status=Correction.Status.APPLIED, decided_at__lt=report.started_at
    ).exclude(kind=Correction.Kind.TRADE)
    if before is not None:
        applied = applied.filter(decided_at__gte=before)
    by_itself = sum(action["action"] == "corrected" for action in report.actions)
    report.reconciled_count = applied.count() + by_itself


def _tell(account: BrokerAccount, report: ReconciliationReport) -> None:
    log.info(
        "reconciled",
        extra={
            "account": account.name,
            "complete": report.complete,
            "reason": report.reason,
            "differences": report.differences_count,
            "duration": f"{report.duration_seconds}",
        },
    )
    if report.complete:
        end_alert(account.pk, code="reconciliation_incomplete", subject=account.name)
        end_alert(account.pk, code="reconciliation_failing", subject=account.name)
        return
    raise_alert(
        account.pk,
        code="reconciliation_incomplete",
        subject=account.name,
        severity=Alert.Severity.WARNING,
        message=f"The broker could not be read completely: {report.reason}",
    )
    lately = ReconciliationReport.objects.filter(account=account, dry_run=False)
    last = list(lately.values_list("complete", flat=True)[:_FAILURES])
    if len(last) == _FAILURES and not any(last):
        raise_alert(
            account.pk,
            code="reconciliation_failing",
            subject=account.name,
            severity=Alert.Severity.CRITICAL,
            message=(
                f"{_FAILURES} comparisons in a row could not read the broker completely: "
                f"{report.reason} Our book is not checked meanwhile."
            ),
        )


def latest_complete(account_id: int) -> datetime | None:
    """When the last complete comparison of an account began."""
    return (
        ReconciliationReport.objects.filter(account_id=account_id, complete=True, dry_run=False)
        .values_list("started_at", flat=True)
        .first()
    )
