"""What the clock calls: compares books with the broker. Safe to run twice at once."""

import logging
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.budget import Priority, priority
from reconciliation import corrections
from reconciliation.models import Suspect
from reconciliation.run import reconcile as reconcile_account
from risk.figures import database_now
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.reconciliation")


def reconcile() -> None:
    """One run for every account that is watched."""
    _each(BrokerAccount.served())


def second_look() -> None:
    """Another run for accounts with a suspect that is old enough to be looked at again."""
    due = database_now() - timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    suspected = Suspect.objects.filter(last_seen__lte=due).values("account_id")
    _each(BrokerAccount.served().filter(pk__in=suspected))


def _each(accounts: Iterable[BrokerAccount]) -> None:
    for account in accounts:
        if in_force(account.pk).reconcile_mode == RiskLimits.ReconcileMode.OFF:
            Suspect.objects.filter(account=account).delete()
            continue
        try:
            with priority(Priority.POLL):
                reconcile_account(account)
        except Exception:  # one account that can't be handled must not hold up the others
            log.exception("not reconciled", extra={"account": account.name})


def expire() -> None:
    """Ends proposals that nobody decided in time."""
    corrections.expire(database_now())
