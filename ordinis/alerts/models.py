"""Incidents and problems worth a person's attention, one row per problem however often it recurs,
and the outbox: what was told of each on which channel.

Raising one never fails the work that raises it for want of a channel: it is a row, no more. What
has to be told is found from the columns here (`ordinis.alerts.outbox`), so nothing is lost
between the two. Must never hold a channel's address: it carries tokens.
"""

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts import kinds


class Alert(models.Model):
    class Severity(models.TextChoices):
        WARNING = "warning", "To look at"
        CRITICAL = "critical", "To act on"

    account = models.ForeignKey(
        BrokerAccount,
        models.PROTECT,
        related_name="alerts",
        null=True,
        help_text="None: the problem is of the whole installation.",
    )
    code = models.CharField(max_length=48, help_text="What kind of problem.")
    subject = models.CharField(max_length=80, help_text="The symbol or order it is about.")
    severity = models.CharField(max_length=10, choices=Severity.choices)
    message = models.TextField()
    first_seen = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())
    seen_count = models.PositiveIntegerField(default=1)
    ended_at = models.DateTimeField(null=True)

    # When messages of it were last put into the outbox, how often, and how severe it was then.
    last_told_at = models.DateTimeField(null=True, editable=False)
    times_told = models.PositiveIntegerField(default=0, editable=False)
    told_severity = models.CharField(max_length=10, blank=True, editable=False)
    # When nothing was left to be told of its end.
    told_ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-last_seen",)
        permissions = [
            ("send_test_alert", "Can send a test alert"),
            ("close_alert", "Can mark an alert as seen to"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("account", "code", "subject"),
                condition=Q(ended_at=None),
                nulls_distinct=False,
                name="one_open_alert_per_problem",
            ),
        ]
        indexes = [
            # All that telling ever looks at, however long the past is.
            models.Index(fields=["id"], condition=Q(told_ended_at=None), name="alerts_to_tell"),
            models.Index(fields=["code", "subject"], name="alerts_of_a_problem"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.subject}"

    @property
    def words(self) -> str:
        """The kind of problem, for people."""
        return kinds.words(self.code)

    def close(self) -> bool:
        """Marks it as seen to by a person; says whether it still stood. Should the problem be
        seen again, that is a new alert."""
        return bool(Alert.objects.filter(pk=self.pk, ended_at=None).update(ended_at=Now()))


Severity = Alert.Severity


class AlertChannel(models.Model):
    """How a channel fares. What it is named and where it leads is the environment's to say."""

    name = models.CharField(max_length=32, primary_key=True)
    failures = models.PositiveIntegerField("failures in a row", default=0)
    retry_at = models.DateTimeField(null=True)
    last_sent_at = models.DateTimeField(null=True)
    last_failed_at = models.DateTimeField(null=True)
    last_error = models.TextField(blank=True)

    class Meta:
        ordering = ("name",)
        verbose_name = "alert channel"

    def __str__(self) -> str:
        return self.name


class AlertMessage(models.Model):
    """That one problem, or its end, is to be told on one channel, and what came of it. Several go
    out in one message; its text is made when it is sent."""

    class Kind(models.TextChoices):
        PROBLEM = "problem", "Problem"
        REPEAT = "repeat", "Still stands"
        RECOVERY = "recovery", "Over"
        TEST = "test", "Test"

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        SENT = "sent", "Sent"
        FAILED = "failed", "Failed"
        SUPPRESSED = "suppressed", "Not sent"

    alert = models.ForeignKey(Alert, models.PROTECT, related_name="messages", null=True)
    channel = models.CharField(max_length=32)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    # How often the problem had been told before.
    number = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    reason = models.CharField(
        max_length=200, blank=True, help_text="Why it was not sent, or who asked."
    )
    error = models.TextField(blank=True)
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())
    next_attempt_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)
    # Whoever sends it now; free again when the time is over, should that process have died.
    claim = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        verbose_name = "alert message"
        constraints = [
            models.UniqueConstraint(
                fields=("alert", "channel", "kind", "number"), name="one_message_per_telling"
            ),
        ]
        indexes = [
            models.Index(
                fields=["channel"], condition=Q(state="pending"), name="alert_messages_to_send"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} on {self.channel}"


def raise_alert(
    account_id: int | None,
    *,
    code: str,
    subject: str,
    severity: Alert.Severity,
    message: str,
) -> None:
    """Records a problem, or counts it once more while it stands; it may become critical meanwhile,
    never less than it was. Without an account it is the whole installation's. Safe to call at the
    same time from anywhere, inside a transaction or out of it."""
    Alert.objects.bulk_create(
        [
            Alert(
                account_id=account_id,
                code=code,
                subject=subject[:80],
                severity=severity,
                message=message,
                seen_count=0,
            )
        ],
        ignore_conflicts=True,
    )
    louder: dict[str, Any] = {"severity": severity} if severity == Severity.CRITICAL else {}
    Alert.objects.filter(
        account_id=account_id, code=code, subject=subject[:80], ended_at=None
    ).update(seen_count=F("seen_count") + 1, last_seen=Now(), message=message, **louder)


def end_alert(account_id: int | None, *, code: str, subject: str) -> None:
    """Marks a problem as over; it stays in the list of past ones."""
    Alert.objects.filter(
        account_id=account_id, code=code, subject=subject[:80], ended_at=None
    ).update(ended_at=Now())
