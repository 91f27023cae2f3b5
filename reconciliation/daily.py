"""The daily report: what a day of the exchange was, counted once after its close and kept.

Reads the book, asks nobody, changes nothing but its own row and the scorecard's alerts, which are
written together.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from django.db import transaction

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from reconciliation.daily_figures import measured
from reconciliation.daily_window import Day, day_at, day_on, due_days
from reconciliation.models import DailyReport
from reconciliation.scorecard import Measure


class NoReport(Exception):
    """There is nothing to tell of that day; the text says why, and where to look."""


def make_due(now: datetime) -> int:
    """Makes what is missing of the last trading days, for every account that is served and was
    open then; returns how many. Safe to run twice, also at once."""
    days = due_days(now)
    if not days:
        return 0
    accounts = list(BrokerAccount.served().exclude(opened_at=None))
    stored = DailyReport.objects.filter(account__in=accounts, day__in=[day.day for day in days])
    have = set(stored.values_list("account_id", "day"))
    made = 0
    for day in days:
        for account in accounts:
            assert account.opened_at is not None, "excluded above"
            if (account.pk, day.day) not in have and account.opened_at < day.ends:
                made += _make(account, day, now, newest=day == days[-1])
    return made


def _make(account: BrokerAccount, day: Day, now: datetime, *, newest: bool) -> bool:
    found = measured(account, day, now)
    with transaction.atomic():
        _, created = DailyReport.objects.get_or_create(
            account=account, day=day.day, defaults={"figures": found.figures}
        )
        if created and newest:  # an older day says nothing of what is wrong now
            _guard(account, day.day, found.cards)
    return created


def figures_of(account: BrokerAccount, day: date | None, now: datetime) -> dict[str, Any]:
    """The figures of a day, those stored if there are any; else counted up to now, and marked as
    not final. Without a day, of the one that runs. Raises NoReport."""
    asked = day_at(now) if day is None else day_on(day)
    if asked is None:
        raise NoReport(
            f"The exchange does not trade on {day}: what happens then is told in the report of the "
            "next trading day."
        )
    if asked.starts > now:
        raise NoReport(f"{asked.day} has not begun: its report covers from {asked.starts} on.")
    if account.opened_at is None:
        raise NoReport(
            f"The book of {account} has not been opened yet: that happens when the broker is read "
            "for the first time. Until then there is nothing to report."
        )
    if account.opened_at >= asked.ends:
        raise NoReport(
            f"The book of {account} was opened at {account.opened_at:%Y-%m-%d %H:%M:%S} UTC, after "
            f"{asked.day} was over: nothing is known of that day. Ask for a later one."
        )
    stored = DailyReport.objects.filter(account=account, day=asked.day).first()
    if stored is not None:
        figures: dict[str, Any] = stored.figures
        return figures
    return measured(account, asked, now).figures


def _guard(account: BrokerAccount, day: date, cards: Mapping[str, Sequence[Measure]]) -> None:
    """Tells of each measure beyond its guardrail, until a later day keeps to it."""
    for measure in (each for window in cards.values() for each in window if each.is_guarded):
        code = f"scorecard_{measure.spec.key}"
        if measure.met or measure.beyond is False:
            end_alert(account.pk, code=code, subject=account.name)
        elif measure.beyond:
            raise_alert(
                account.pk,
                code=code,
                subject=account.name,
                severity=Alert.Severity.WARNING,
                message=_beyond(measure, day),
            )


def _beyond(measure: Measure, day: date) -> str:
    spec = measure.spec
    assert spec.guardrail is not None, "only what has one can be beyond it"
    shown = f"{measure.value} {spec.unit}".rstrip()
    return (
        f"{spec.title}: {shown} on {day}, and it is to be {spec.guardrail.words(spec.unit)}. "
        f"{spec.note} The report of {day} has the figures."
    )
