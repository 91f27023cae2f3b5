"""What the clock calls: compares books with the broker. Safe to run twice at once."""

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


def reconcile() -> None:
    """One run for every account that is watched."""
    for account in BrokerAccount.served():
        if in_force(account.pk).reconcile_mode != RiskLimits.ReconcileMode.OFF:
            with priority(Priority.POLL):
                reconcile_account(account)


def second_look() -> None:
    """Another run for accounts with a suspect that is old enough to be looked at again."""
    due = database_now() - timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    suspected = Suspect.objects.filter(last_seen__lte=due).values("account_id")
    for account in BrokerAccount.served().filter(pk__in=suspected):
        with priority(Priority.POLL):
            reconcile_account(account)


def expire() -> None:
    """Ends proposals that nobody decided in time."""
    corrections.expire(database_now())
