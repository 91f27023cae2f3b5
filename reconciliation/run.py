"""One reconciliation of one account: read the broker, compare, keep what was found.

Nothing is concluded from an incomplete answer. Never two at once for one account, in however
many processes; who asks during a run waits and gets a run of its own. Changes nothing at the
broker and nothing in the ledger.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal

from django.db import OperationalError, connection

from orders.models import OrderHistory
from orders.sync import ensure_open_book, poll, refresh
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerError, BrokerUnavailable
from ordinis.numbers import plain
from positions.models import Position
from reconciliation import breaks, order_breaks
from reconciliation.compare import Found, compare
from reconciliation.models import Correction, Kind, ReconciliationReport
from risk import figures
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.reconciliation")

_LOCK_CLASS = 0x0D15  # of PostgreSQL's advisory locks: "reconciling", then the account's id


_LONGEST_WAIT = 50  # seconds


class Busy(Exception):
    """Another comparison of the account has been under way for too long to wait for it."""


def reconcile(account: BrokerAccount, *, dry_run: bool = False) -> ReconciliationReport:
    """Compares book and broker and stores the report. A failed read makes an incomplete report,
    never an exception. Raises Busy."""
    with _alone(account):
        started = time.monotonic()
        started_at = figures.database_now()
        mode = in_force(account.pk).reconcile_mode
        report = ReconciliationReport(
            account=account, mode=mode, dry_run=dry_run, started_at=started_at, complete=True
        )
        try:
            snapshot = _read(account)
        except BrokerError as error:
            report.complete, report.reason = False, error.message
        else:
            found = _compare(account, snapshot)
            _describe(report, account, found, snapshot)
            if not dry_run and mode != RiskLimits.ReconcileMode.OFF:
                breaks.take_in(account, found, snapshot, mode=mode)
                order_breaks.take_in(account, snapshot.asked_at)
            if not dry_run:
                BrokerAccount.objects.filter(pk=account.pk).update(books_as_of=snapshot.asked_at)
            report.pending_approval_count = Correction.objects.filter(
                account=account, status=Correction.Status.PROPOSED
            ).count()
        report.order_breaks = order_breaks.described(account)
        report.duration_seconds = Decimal(f"{time.monotonic() - started:.3f}")
        _count_reconciled(report)
        report.save()
        _tell(account, report)
    return report


@contextmanager
def _alone(account: BrokerAccount) -> Iterator[None]:
    """Waits for a run that is under way. The lock dies with its process."""
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


def _read(account: BrokerAccount) -> figures.Figures:
    """Orders first, so that fills are booked before positions are compared."""
    ensure_open_book(account)
    if not poll(account, source=OrderHistory.Source.RECONCILE):
        raise BrokerUnavailable("The broker's orders could not all be read.")
    return refresh(account)


def _compare(account: BrokerAccount, snapshot: figures.Figures) -> list[Found]:
    book = {
        position.symbol: position.qty
        for position in Position.objects.filter(account=account).only("symbol", "qty")
    }
    return compare(book, {symbol: held.qty for symbol, held in snapshot.positions.items()})


def _describe(
    report: ReconciliationReport,
    account: BrokerAccount,
    found: list[Found],
    snapshot: figures.Figures,
) -> None:
    report.zombies = [item.symbol for item in found if item.kind == Kind.ZOMBIE]
    report.orphans = [item.symbol for item in found if item.kind == Kind.ORPHAN]
    report.quantity_drifts = [
        {
            "symbol": item.symbol,
            "local": f"{plain(item.local_qty)}",
            "broker": f"{plain(item.broker_qty)}",
            "difference": f"{plain(item.difference)}",
        }
        for item in found
        if item.kind == Kind.QUANTITY
    ]
    held = Position.objects.filter(account=account, status=Position.Status.OPEN)
    report.compared_count = len(
        snapshot.positions.keys() | set(held.values_list("symbol", flat=True))
    )
    report.critical_issues = [
        f"{item.symbol}: the broker holds {plain(item.broker_qty)} that we know nothing of"
        for item in found
        if item.kind == Kind.ORPHAN
    ]


def _count_reconciled(report: ReconciliationReport) -> None:
    before = (
        ReconciliationReport.objects.filter(account=report.account, dry_run=False)
        .values_list("started_at", flat=True)
        .first()
    )
    applied = Correction.objects.filter(
        account=report.account, status=Correction.Status.APPLIED, decided_at__lt=report.started_at
    )
    if before is not None:
        applied = applied.filter(decided_at__gte=before)
    report.reconciled_count = applied.count()


def _tell(account: BrokerAccount, report: ReconciliationReport) -> None:
    log.info(
        "reconciled",
        extra={
            "account": account.name,
            "complete": report.complete,
            "reason": report.reason,
            "differences": len(report.zombies) + len(report.orphans) + len(report.quantity_drifts),
            "duration": f"{report.duration_seconds}",
        },
    )
    if report.complete:
        end_alert(account.pk, code="reconciliation_incomplete", subject=account.name)
    else:
        raise_alert(
            account.pk,
            code="reconciliation_incomplete",
            subject=account.name,
            severity=Alert.Severity.WARNING,
            message=f"The broker could not be read completely: {report.reason}",
        )


def latest_complete(account_id: int) -> datetime | None:
    """When the last complete comparison of an account began."""
    return (
        ReconciliationReport.objects.filter(account_id=account_id, complete=True, dry_run=False)
        .values_list("started_at", flat=True)
        .first()
    )
