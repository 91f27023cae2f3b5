"""What the clock calls: compares books with the broker. Safe to run twice at once."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Max

from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, raise_alert
from ordinis.broker.budget import Priority, priority
from ordinis.broker.errors import BrokerError
from reconciliation import daily as daily_reports
from reconciliation import proposals, queue, snapshots, symbols, trades
from reconciliation.models import ReconciliationReport, Suspect
from reconciliation.run import Busy
from reconciliation.run import reconcile as reconcile_account
from risk.exchange import REGULAR, session_at
from risk.figures import database_now
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.reconciliation")

# Outside market hours books are compared a tenth as often (SPEC R3).
_SLOWER = 10


def reconcile() -> None:
    """One run for every account that is watched and due."""
    now = database_now()
    for account in _watched(BrokerAccount.served()):
        cadence = settings.RECONCILE_SECONDS * (1 if _is_open(account, now) else _SLOWER)
        if _is_due(account, now, timedelta(seconds=cadence)):
            _one(lambda account: reconcile_account(account, source="clock"), account)
        # After the run: a slow night's last comparison must not look late at the opening bell.
        if account.cadence_seconds != int(cadence):
            BrokerAccount.objects.filter(pk=account.pk).update(cadence_seconds=int(cadence))


def second_look() -> None:
    """Another run for accounts with a suspect that is old enough to be looked at again."""
    now, wait = database_now(), timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    suspected = Suspect.objects.filter(last_seen__lte=now - wait).values("account_id")
    for account in _watched(BrokerAccount.served().filter(pk__in=suspected)):
        if _is_due(account, now, wait):  # a look that could not read is no reason to hurry
            _one(lambda account: reconcile_account(account, source="second_look"), account)


def after_orders() -> None:
    """Compares the symbols of orders that have just ended."""
    for account in _watched(BrokerAccount.served()):
        _one(symbols.reconcile_due, account)


def _watched(accounts: Iterable[BrokerAccount]) -> Iterable[BrokerAccount]:
    for account in accounts:
        if in_force(account.pk).reconcile_mode == RiskLimits.ReconcileMode.OFF:
            Suspect.objects.filter(account=account).delete()
        else:
            yield account


def _one(work: Callable[[BrokerAccount], object], account: BrokerAccount) -> None:
    try:
        with priority(Priority.POLL):
            work(account)
    except BrokerError as error:
        log.warning("not compared", extra={"account": account.name, "error": error.message})
    except Busy as error:
        log.warning("not compared", extra={"account": account.name, "error": str(error)})
    except Exception as error:  # one account that can't be handled must not hold up the others
        log.exception("not reconciled", extra={"account": account.name})
        raise_alert(
            account.pk,
            code="reconciliation_failing",
            subject=account.name,
            severity=Alert.Severity.CRITICAL,
            message=(
                f"Book and broker could not be compared ({type(error).__name__}): our book is not "
                "checked meanwhile. The worker's log says more."
            ),
        )


def _is_open(account: BrokerAccount, now: datetime) -> bool:
    """By the calendar, and outside its hours by the broker's own clock: in doubt it is open."""
    if session_at(now).kind == REGULAR:
        return True
    try:
        with priority(Priority.POLL):
            return broker_for(account).clock().is_open
    except BrokerError:
        return True


def _is_due(account: BrokerAccount, now: datetime, cadence: timedelta) -> bool:
    """Whether the last run was long enough ago. The clock ticks at the faster cadence, and again
    when it starts: a little early is on time."""
    last = ReconciliationReport.objects.filter(account=account, dry_run=False).aggregate(
        last=Max("started_at")
    )["last"]
    return last is None or now - last >= cadence * 0.9


def expire() -> None:
    """Ends proposals that nobody decided in time."""
    proposals.expire(database_now())


def escalate() -> None:
    """Calls for a person where a break has waited too long."""
    queue.escalate(database_now())


def trade() -> None:
    """Sends what was decided and not sent: what a process that died had left."""
    trades.pursue()


def forget() -> None:
    """Drops raw evidence that is older than it is to be kept."""
    snapshots.forget(database_now())


def daily() -> None:
    """Makes the report of each day whose close has passed, and of those that were missed."""
    daily_reports.make_due(database_now())
