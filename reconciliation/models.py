"""Reports, suspects, breaks and corrections.

A difference is first a suspect; a break is one line per account, kind and subject however often
it recurs; a correction is decided by a person who did not propose it, and applied at most once.
"""

from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import end_alert
from positions.models import LedgerEntry, Position


class Kind(models.TextChoices):
    ZOMBIE = "zombie", "Zombie: we hold it, the broker does not"
    ORPHAN = "orphan", "Orphan: the broker holds it, we do not"
    QUANTITY = "quantity", "Quantity differs"
    ORDER_FILL = "order_fill", "Order fill: more has filled than was ordered"
    TRADE_BUST = "trade_bust", "Trade bust: the broker took a trade back, or corrected it"


class ReconciliationReport(models.Model):
    """One comparison of an account's book with the broker, stored whatever it found."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="reports")
    mode = models.CharField(max_length=10)
    dry_run = models.BooleanField(default=False)
    complete = models.BooleanField()
    reason = models.TextField(blank=True, help_text="Why it is not complete.")
    started_at = models.DateTimeField()
    duration_seconds = models.DecimalField(max_digits=9, decimal_places=3)
    zombies = models.JSONField(default=list)
    orphans = models.JSONField(default=list)
    quantity_drifts = models.JSONField(default=list)
    order_breaks = models.JSONField(default=list)
    compared_count = models.PositiveIntegerField(default=0)
    reconciled_count = models.PositiveIntegerField(
        default=0, help_text="Positions brought up to date since the last report."
    )
    pending_approval_count = models.PositiveIntegerField(default=0)
    critical_issues = models.JSONField(default=list)

    class Meta:
        ordering = ("-started_at", "-id")
        verbose_name = "reconciliation report"
        indexes = [models.Index(fields=("account", "-started_at"), name="reports_by_account")]

    def __str__(self) -> str:
        return f"{self.account}, {self.started_at:%Y-%m-%d %H:%M:%S}"


class Difference(models.Model):
    """What a suspect and a break share: which position differs, and by how much."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="%(class)ss")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    symbol = models.CharField(max_length=16)
    local_qty = models.DecimalField(max_digits=20, decimal_places=9)
    broker_qty = models.DecimalField(max_digits=20, decimal_places=9)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.get_kind_display().split(':')[0]} {self.symbol}"

    @property
    def difference(self) -> Decimal:
        """The broker's shares less ours."""
        return self.broker_qty - self.local_qty


class Suspect(Difference):
    """A difference seen once. It becomes a break when a second look still shows it and nothing of
    the symbol moved in between; else it is forgotten."""

    # Since when nothing of the symbol has moved.
    quiet_since = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("account", "symbol"), name="one_suspect_per_symbol"),
        ]


class Break(Difference):
    """A confirmed difference between book and broker."""

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        CORRECTING = "correcting", "Waiting for a decision"
        HEALED = "healed", "Healed by itself"
        RESOLVED = "resolved", "Resolved by a correction"

    class Severity(models.TextChoices):
        WARNING = "warning", "To look at"
        CRITICAL = "critical", "To act on"

    OPEN_STATUSES = (Status.OPEN, Status.CORRECTING)

    # Of a break that is about an order; then the quantities are the order's.
    order = models.ForeignKey(Order, models.PROTECT, null=True, related_name="breaks")
    value = models.DecimalField(
        max_digits=20, decimal_places=4, null=True, help_text="The difference in dollars."
    )
    severity = models.CharField(max_length=10, choices=Severity.choices)
    seen_count = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.OPEN)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-last_seen", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("account", "kind", "symbol", "order"),
                nulls_distinct=False,
                condition=Q(status__in=("open", "correcting")),
                name="one_open_break_per_subject",
            ),
        ]

    def end(self, status: "Break.Status", now: datetime) -> None:
        """Closes the break, and the alert that it raised."""
        self.status, self.ended_at = status, now
        self.save(update_fields=("status", "ended_at"))
        end_alert(self.account_id, code=f"break_{self.kind}", subject=self.symbol)


class Correction(models.Model):
    """A proposed ledger entry, and everything it rests on.

    Applied by compare-and-swap: only while the position's ledger is at `ledger_version` and the
    broker still says `broker_qty`.
    """

    class Status(models.TextChoices):
        PROPOSED = "proposed", "Waiting for a decision"
        APPLIED = "applied", "Approved and applied"
        REJECTED = "rejected", "Rejected"
        SUPERSEDED = "superseded", "Overtaken by the facts"
        EXPIRED = "expired", "Expired"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="corrections")
    subject = models.ForeignKey(
        Break, models.PROTECT, related_name="corrections", verbose_name="break"
    )
    position = models.ForeignKey(Position, models.PROTECT, related_name="corrections")
    local_qty = models.DecimalField(max_digits=20, decimal_places=9)
    broker_qty = models.DecimalField(max_digits=20, decimal_places=9)
    local_average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    broker_average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    ledger_version = models.PositiveIntegerField(
        help_text="The position's last ledger entry when this was proposed."
    )
    evidence = models.JSONField(help_text="The broker's position as it was read.", null=True)
    watermark = models.DateTimeField(help_text="When the broker was asked (database clock).")
    # Empty: Ordinis proposed it.
    proposed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    proposed_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PROPOSED)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)
    comment = models.TextField(blank=True)
    ledger_entry = models.OneToOneField(
        LedgerEntry, models.PROTECT, null=True, related_name="correction"
    )

    class Meta:
        ordering = ("-proposed_at", "-id")
        permissions = [
            ("decide_correction", "Can approve or reject a correction"),
            ("propose_correction", "Can propose a correction"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("subject",),
                condition=Q(status="proposed"),
                name="one_waiting_correction_per_break",
            ),
            models.CheckConstraint(
                condition=Q(decided_by=None)
                | Q(proposed_by=None)
                | ~Q(decided_by=F("proposed_by")),
                name="decider_is_not_the_proposer",
            ),
            models.CheckConstraint(
                condition=Q(status="applied", ledger_entry__isnull=False, decided_by__isnull=False)
                | (~Q(status="applied") & Q(ledger_entry=None)),
                name="correction_applied_with_its_entry",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.difference.normalize():+f} {self.position}"

    @property
    def difference(self) -> Decimal:
        """Shares that the correction adds to the book."""
        return self.broker_qty - self.local_qty

    @property
    def actor(self) -> str:
        return self.proposed_by.get_username() if self.proposed_by else "Ordinis"
