"""The line at the top of every page: where you are, what orders may do now, how old the last
complete sync is, and whether something waits for a decision.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from ordinis.accounts.models import BrokerAccount
from reconciliation.models import Correction, ReconciliationReport
from risk import trading
from risk.limits import Limits, in_force_of_all
from risk.models import RiskLimits
from risk.states import ACTIVE, HALTED, REDUCING, TradingState

# How many times the cadence a sync may be old before it is amber, and red.
LATE, TOO_LATE = 2, 3
# What each trading state is called, and how loud it is.
STATE_WORDS: Final = {ACTIVE: "Active", REDUCING: "Reducing", HALTED: "Halted"}
STATE_TONES: Final = {ACTIVE: "", REDUCING: "amber", HALTED: "red"}


@dataclass(frozen=True, slots=True)
class Sync:
    """An account: what it may do, and how fresh the comparison with its broker is."""

    account: BrokerAccount
    at: datetime | None
    watched: bool
    tone: str
    trading: TradingState

    @property
    def state_words(self) -> str:
        return STATE_WORDS[self.trading.state]

    @property
    def state_tone(self) -> str:
        return STATE_TONES[self.trading.state]

    @property
    def words(self) -> str:
        """What stands before the age."""
        if not self.watched:
            return "Not watched (reconcile mode is off)"
        if self.at is None:
            return "Not synced yet"
        return {"": "Synced", "amber": "Sync is late:", "red": "Sync has stopped:"}[self.tone]


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says."""

    syncs: list[Sync]
    waiting: int


def header() -> Header:
    """The header as of now, in as many queries for many accounts as for one."""
    newest = ReconciliationReport.objects.filter(
        account_id=OuterRef("pk"), complete=True, dry_run=False
    ).values("started_at")[:1]
    accounts = BrokerAccount.objects.annotate(synced_at=Subquery(newest))
    waiting = Correction.objects.filter(status=Correction.Status.PROPOSED).count()
    limits, states = in_force_of_all(), trading.current_of_all()
    return Header(
        [
            _sync(account, account.synced_at, limits.get(account.pk, Limits()), states[account.pk])
            for account in accounts
        ],
        waiting,
    )


def _sync(account: BrokerAccount, at: datetime | None, limits: Limits, state: TradingState) -> Sync:
    watched = limits.reconcile_mode != RiskLimits.ReconcileMode.OFF
    return Sync(account, at, watched, _tone(account, at) if watched else "amber", state)


def _tone(account: BrokerAccount, at: datetime | None) -> str:
    if at is None:
        return "amber"
    cadences = (timezone.now() - at) / account.cadence
    return "red" if cadences > TOO_LATE else "amber" if cadences > LATE else ""
