"""Incidents and problems worth a person's attention, one row per problem however often it recurs.

Raising one never fails the work that raises it for want of a channel: it is a row, no more.
"""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount


class Alert(models.Model):
    class Severity(models.TextChoices):
        WARNING = "warning", "To look at"
        CRITICAL = "critical", "To act on"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="alerts")
    code = models.CharField(max_length=48, help_text="What kind of problem.")
    subject = models.CharField(max_length=80, help_text="The symbol or order it is about.")
    severity = models.CharField(max_length=10, choices=Severity.choices)
    message = models.TextField()
    first_seen = models.DateTimeField(db_default=Now())
    last_seen = models.DateTimeField(db_default=Now())
    seen_count = models.PositiveIntegerField(default=1)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-last_seen",)
        constraints = [
            models.UniqueConstraint(
                fields=("account", "code", "subject"),
                condition=Q(ended_at=None),
                name="one_open_alert_per_problem",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.subject}"


def raise_alert(
    account_id: int, *, code: str, subject: str, severity: Alert.Severity, message: str
) -> None:
    """Records a problem, or counts it once more while it stands. Safe to call at the same time
    from anywhere, inside a transaction or out of it."""
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
    Alert.objects.filter(
        account_id=account_id, code=code, subject=subject[:80], ended_at=None
    ).update(seen_count=F("seen_count") + 1, last_seen=Now(), message=message)


def end_alert(account_id: int, *, code: str, subject: str) -> None:
    """Marks a problem as over; it stays in the list of past ones."""
    Alert.objects.filter(
        account_id=account_id, code=code, subject=subject[:80], ended_at=None
    ).update(ended_at=Now())
