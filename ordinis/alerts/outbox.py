"""Finds what has to be told and puts it into the outbox: one row per problem, or end of one, and
channel.

Works from the columns of the alert alone, in one transaction for both, so a process that dies
loses nothing and tells nothing twice. Must never wait for work that holds an alert: it is left
for the next run.
"""

from collections import defaultdict
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from ordinis.alerts.channels import Configuration
from ordinis.alerts.models import Alert, AlertMessage, Severity

Kind, State = AlertMessage.Kind, AlertMessage.State
_AT_ONCE = 500
OVER_BEFORE = "It was over before it was told."
NO_CHANNEL = "The channel is not set up any more."
# Another process may have been started with the channel already, or have it still.
_GONE_AFTER = timedelta(minutes=15)


def hand_over(configuration: Configuration) -> None:
    """Makes the messages that are due, and withdraws those that have no point any more."""
    _tell(configuration)
    _tell_ends()
    _pending().filter(created_at__lt=Now() - _GONE_AFTER).exclude(
        channel__in=configuration.names
    ).update(state=State.SUPPRESSED, reason=NO_CHANNEL)


def _pending() -> "QuerySet[AlertMessage]":
    return AlertMessage.objects.filter(state=State.PENDING)


def _locked(condition: Q) -> list[Alert]:
    return list(
        Alert.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        .select_related("account")
        .filter(condition, told_ended_at=None)
        .order_by("severity", "pk")[:_AT_ONCE]  # critical first
    )


def _to_tell() -> Q:
    """New ones, those that became critical, and those that stand since long."""
    again = Q(severity=Severity.CRITICAL, told_severity=Severity.WARNING)
    for severity, minutes in (
        (Severity.WARNING, settings.ALERT_REPEAT_MINUTES),
        (Severity.CRITICAL, settings.ALERT_REPEAT_MINUTES_CRITICAL),
    ):
        again |= Q(severity=severity, last_told_at__lte=Now() - timedelta(minutes=minutes))
    return (Q(last_told_at=None) & ~_comes_and_goes()) | (Q(ended_at=None) & again)


def _comes_and_goes() -> Q:
    """A warning of the same problem was sent a moment ago: this one waits to see if it stays."""
    lately = Now() - timedelta(minutes=settings.ALERT_QUIET_MINUTES)
    same = Alert.objects.filter(
        account=OuterRef("account"),
        code=OuterRef("code"),
        subject=OuterRef("subject"),
        messages__state=State.SENT,
        messages__sent_at__gt=lately,
    ).exclude(pk=OuterRef("pk"))
    return Q(Exists(same), severity=Severity.WARNING)


@transaction.atomic
def _tell(configuration: Configuration) -> None:
    alerts = _locked(_to_tell())
    if not alerts:
        return
    before = _before(alerts)
    made = []
    for alert in alerts:
        for channel in configuration.channels:
            states = before.get((alert.pk, channel.name), set())
            if State.PENDING in states or not channel.hears(alert):
                continue
            made.append(
                AlertMessage(
                    alert=alert,
                    channel=channel.name,
                    kind=Kind.REPEAT if State.SENT in states else Kind.PROBLEM,
                    severity=alert.severity,
                    number=alert.times_told,
                    # What comes within this time goes into the same message.
                    next_attempt_at=Now() + timedelta(seconds=settings.ALERT_BATCH_SECONDS),
                )
            )
    AlertMessage.objects.bulk_create(made, ignore_conflicts=True)
    Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(
        last_told_at=Now(), times_told=F("times_told") + 1, told_severity=F("severity")
    )


@transaction.atomic
def _tell_ends() -> None:
    """Each problem that was told is told to be over, once, where it was told."""
    alerts = _locked(~Q(ended_at=None) & ~Q(last_told_at=None))
    if not alerts:
        return
    _withdraw(alerts)
    undecided, made = set(), []
    for (key, channel), states in _before(alerts).items():
        if State.SENT in states:
            made.append(
                AlertMessage(
                    alert_id=key, channel=channel, kind=Kind.RECOVERY, severity=Severity.WARNING
                )
            )
        elif State.PENDING in states:
            undecided.add(key)  # the problem goes out first
    AlertMessage.objects.bulk_create(made, ignore_conflicts=True)
    done = [alert.pk for alert in alerts if alert.pk not in undecided]
    Alert.objects.filter(pk__in=done).update(told_ended_at=Now())


def _withdraw(alerts: list[Alert]) -> None:
    """Of what nobody has begun to send, only a critical problem is still worth telling."""
    news = Q(kind=Kind.PROBLEM, severity=Severity.CRITICAL)
    _pending().filter(alert__in=alerts, attempts=0).exclude(news).exclude(
        kind=Kind.RECOVERY
    ).update(state=State.SUPPRESSED, reason=OVER_BEFORE)


def _before(alerts: list[Alert]) -> dict[tuple[int, str], set[str]]:
    """What came of telling these problems so far, by alert and channel."""
    states: dict[tuple[int, str], set[str]] = defaultdict(set)
    rows = (
        AlertMessage.objects.filter(alert__in=alerts)
        .exclude(kind=Kind.RECOVERY)
        .order_by()
        .values_list("alert_id", "channel", "state")
        .distinct()
    )
    for key, channel, state in rows:
        assert key is not None
        states[key, channel].add(state)
    return states
