"""Snapshots of the broker, reports, suspects, breaks with their history, corrections, rebuilds.

A difference is first a suspect; a break is one line per account and subject however often it
recurs; a correction is decided by a person who did not propose it, or applied by itself within
limits, and applied at most once. History rows are append-only by trigger.
"""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from positions.models import CashEntry, LedgerEntry, Position


class Kind(models.TextChoices):
    ZOMBIE = "zombie", "Zombie: we hold it, the broker does not"
    ORPHAN = "orphan", "Orphan: the broker holds it, we do not"
    QUANTITY = "quantity", "Quantity differs"
    SIDE = "side", "Side: one is long, the other short"
    AVERAGE_PRICE = "average_price", "Average price differs"
    SPLIT = "split", "Split: the shares differ by its ratio"
    ORDER_MISSING = "order_missing", "Order missing: open here, unknown at the broker"
    ORDER_EXTERNAL = "order_external", "External order: open at the broker, not placed here"
    ORDER_STATUS = "order_status", "Order status differs"
    ORDER_FILL = "order_fill", "Order fill: the filled quantity differs"
    CASH = "cash", "Cash differs"
    BUYING_POWER = "buying_power", "Buying power is not what follows from what happened"
    MASS = "mass", "Many positions differ at once"
    TRADE_BUST = "trade_bust", "Trade bust: the broker took a trade back, or corrected it"


# About one position each, and then their figures are shares (average_price: dollars a share).
OF_POSITIONS = frozenset(
    {Kind.ZOMBIE, Kind.ORPHAN, Kind.QUANTITY, Kind.SIDE, Kind.AVERAGE_PRICE, Kind.SPLIT}
)
OF_ORDERS = frozenset({Kind.ORDER_MISSING, Kind.ORDER_EXTERNAL, Kind.ORDER_STATUS, Kind.ORDER_FILL})
OF_ACCOUNT = frozenset({Kind.CASH, Kind.BUYING_POWER, Kind.MASS})


class Snapshot(models.Model):
    """What the broker said in one reading: orders, then fills, then positions and account.

    Where the same facts were read before, the raw evidence is kept once (`same_as`).
    """

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="snapshots")
    asked_at = models.DateTimeField(help_text="When the positions were asked for.")
    complete = models.BooleanField()
    reason = models.TextField(blank=True, help_text="Why it is not complete.")
    orders = models.PositiveIntegerField(default=0, help_text="Open orders read.")
    fills = models.PositiveIntegerField(default=0, help_text="Fills read.")
    positions = models.PositiveIntegerField(default=0, help_text="Positions read.")
    # SHA-256 over the facts: orders, fills, shares, averages and cash, but no prices.
    digest = models.CharField(max_length=64, blank=True)
    same_as = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")
    # The broker's own bodies as JSON, compressed; empty once they were kept long enough.
    evidence = models.BinaryField(null=True)

    class Meta:
        ordering = ("-asked_at", "-pk")
        indexes = [models.Index(fields=("account", "-asked_at"), name="snapshots_by_account")]

    def __str__(self) -> str:
        return f"{self.account}, {self.asked_at:%Y-%m-%d %H:%M:%S}"


class AccountWatch(models.Model):
    """What comparisons of an account remember from one to the next."""

    account = models.OneToOneField(BrokerAccount, models.CASCADE, related_name="watch")
    # Up to when the broker's fills were read, by the broker's own clock: it may differ from ours.
    fills_through = models.DateTimeField(null=True)
    # The figures from which buying power is expected to follow.
    baseline_at = models.DateTimeField(null=True)
    baseline = models.JSONField(null=True)

    def __str__(self) -> str:
        return f"{self.account}"


class BrokerActivity(models.Model):
    """A line of the broker's activities that did not come from an order of ours: evidence."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="activities")
    activity_id = models.CharField(max_length=120)
    activity_type = models.CharField(max_length=32)
    symbol = models.CharField(max_length=32, blank=True)
    # Shares signed by side for a fill (a sale is negative); as the broker says for others.
    qty = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    amount = models.DecimalField(
        max_digits=24, decimal_places=9, default=Decimal(0), help_text="Dollars, signed."
    )
    broker_order_id = models.CharField(max_length=64, blank=True)
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())
    raw = models.JSONField()

    class Meta:
        ordering = ("-occurred_at", "-pk")
        verbose_name_plural = "broker activities"
        constraints = [
            models.UniqueConstraint(
                fields=("account", "activity_id"), name="activity_recorded_once"
            ),
        ]
        indexes = [
            models.Index(fields=("account", "symbol", "-occurred_at"), name="activities_by_symbol"),
            models.Index(fields=("account", "recorded_at"), name="activities_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.activity_type} {self.symbol}".strip()


class ReconciliationReport(models.Model):
    """One comparison of an account's book with the broker, stored whatever it found."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="reports")
    snapshot = models.ForeignKey(Snapshot, models.PROTECT, null=True, related_name="reports")
    mode = models.CharField(max_length=10)
    dry_run = models.BooleanField(default=False)
    # Who asked for it: the clock, a second look, the start, a page, the API, the command.
    source = models.CharField(max_length=20, default="clock")
    actor = models.CharField(max_length=150, blank=True)
    complete = models.BooleanField()
    reason = models.TextField(blank=True, help_text="Why it is not complete.")
    started_at = models.DateTimeField()
    duration_seconds = models.DecimalField(max_digits=9, decimal_places=3)
    # Of these seconds, those in which the broker was asked.
    broker_seconds = models.DecimalField(max_digits=9, decimal_places=3, default=Decimal(0))
    zombies = models.JSONField(default=list)
    orphans = models.JSONField(default=list)
    quantity_drifts = models.JSONField(default=list)
    order_breaks = models.JSONField(default=list)
    # Every difference that was seen, up to a bound, with what explains it.
    differences = models.JSONField(default=list)
    differences_count = models.PositiveIntegerField(default=0)
    # What was done about them; in a dry run, what would have been.
    actions = models.JSONField(default=list)
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
    """What a suspect and a break share: what differs, and by how much.

    `local` and `broker` are shares of a position or an order, dollars a share for an average
    price, dollars for cash and buying power, positions for `mass`.
    """

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="%(class)ss")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    # What it is about: position/KO, order/<the broker's id>, account/cash …
    subject = models.CharField(max_length=100)
    symbol = models.CharField(max_length=32, blank=True)
    local = models.DecimalField(max_digits=20, decimal_places=9)
    broker = models.DecimalField(max_digits=20, decimal_places=9)
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.get_kind_display().split(':')[0]} {self.symbol}".strip()

    @property
    def difference(self) -> Decimal:
        """The broker's figure less ours."""
        return self.broker - self.local


class Suspect(Difference):
    """A difference seen once. It becomes a break when a second look still shows it and nothing of
    its subject moved in between; else it is forgotten."""

    # Since when nothing of the subject has moved.
    quiet_since = models.DateTimeField()
    # Looks in a row that showed the very same difference, whatever both sides did meanwhile.
    steady_since = models.DateTimeField()
    steady_looks = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=("account", "subject"), name="one_suspect_per_subject"),
        ]


class Break(Difference):
    """A confirmed difference between book and broker."""

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        CORRECTING = "correcting", "Waiting for a decision"
        ESCALATED = "escalated", "Escalated"
        HEALED = "healed", "Healed by itself"
        RESOLVED = "resolved", "Resolved"

    class Severity(models.TextChoices):
        WARNING = "warning", "To look at"
        CRITICAL = "critical", "To act on"

    OPEN_STATUSES = (Status.OPEN, Status.ACKNOWLEDGED, Status.CORRECTING, Status.ESCALATED)

    # Of a break that is about an order of ours.
    order = models.ForeignKey(Order, models.PROTECT, null=True, related_name="breaks")
    broker_order_id = models.CharField(max_length=64, blank=True)
    local_status = models.TextField(blank=True, help_text="The order's status in our book.")
    broker_status = models.TextField(blank=True, help_text="The order's status at the broker.")
    value = models.DecimalField(
        max_digits=20, decimal_places=4, null=True, help_text="The difference in dollars."
    )
    severity = models.CharField(max_length=10, choices=Severity.choices)
    # {"code", …figures}: what makes it understandable; the words are made at the edge.
    explanation = models.JSONField(null=True)
    # False: it was never seen while its subject stood still, so nothing corrects it by itself.
    quiet = models.BooleanField(default=True)
    seen_count = models.PositiveIntegerField(default=1)
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.OPEN)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="assigned_breaks"
    )
    acknowledged_at = models.DateTimeField(null=True)
    escalated_at = models.DateTimeField(null=True)
    reopened_count = models.PositiveIntegerField(default=0)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-last_seen", "-id")
        permissions = [("work_on_break", "Can assign, comment on and acknowledge breaks")]
        constraints = [
            models.UniqueConstraint(
                fields=("account", "subject"),
                condition=Q(ended_at=None),
                name="one_open_break_per_subject",
            ),
            models.CheckConstraint(
                condition=Q(status__in=("healed", "resolved"), ended_at__isnull=False)
                | (~Q(status__in=("healed", "resolved")) & Q(ended_at=None)),
                name="break_ended_with_its_status",
            ),
        ]
        indexes = [
            models.Index(fields=("account", "subject", "-ended_at"), name="breaks_by_subject"),
            models.Index(fields=("account", "-first_seen"), name="breaks_by_time"),
        ]

    @property
    def is_open(self) -> bool:
        return self.ended_at is None


class BreakEvent(models.Model):
    """One step in the life of a break: what happened, by whom, and what was said. Append-only."""

    class What(models.TextChoices):
        OPENED = "opened", "Opened"
        CHANGED = "changed", "The difference changed"
        REOPENED = "reopened", "Opened again"
        COMMENTED = "commented", "Commented"
        ASSIGNED = "assigned", "Assigned"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        PROPOSED = "proposed", "A correction was proposed"
        DECIDED = "decided", "A correction was decided"
        ESCALATED = "escalated", "Escalated"
        HEALED = "healed", "Healed by itself"
        RESOLVED = "resolved", "Resolved"

    subject = models.ForeignKey(Break, models.PROTECT, related_name="events", verbose_name="break")
    what = models.CharField(max_length=12, choices=What.choices)
    at = models.DateTimeField()
    # "Ordinis", or who did it.
    actor = models.CharField(max_length=150)
    text = models.TextField(blank=True)

    class Meta:
        ordering = ("at", "pk")

    def __str__(self) -> str:
        return f"{self.subject}: {self.get_what_display()}"


class Correction(models.Model):
    """A proposed change, and everything it rests on.

    All but `trade` change the book and never the market. Applied by compare-and-swap: only while
    the position's ledger is at `ledger_version` and the broker still says `broker`.
    """

    class Kind(models.TextChoices):
        POSITION = "position", "Take over the broker's shares"
        SPLIT = "split", "Book the split"
        AVERAGE_PRICE = "average_price", "Take over the broker's average price"
        CASH = "cash", "Take over the broker's cash"
        TRADE = "trade", "Trade back to what our book says"

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
    kind = models.CharField(max_length=16, choices=Kind.choices, default=Kind.POSITION)
    position = models.ForeignKey(Position, models.PROTECT, null=True, related_name="corrections")
    # Shares; dollars for cash.
    local = models.DecimalField(max_digits=20, decimal_places=9)
    broker = models.DecimalField(max_digits=20, decimal_places=9)
    local_average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    broker_average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    ledger_version = models.PositiveIntegerField(
        default=0, help_text="The position's last ledger entry when this was proposed."
    )
    # At which the shares changed hands outside, where the broker's fills tell: dollars a share.
    price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    value = models.DecimalField(
        max_digits=20, decimal_places=4, null=True, help_text="Its size in dollars."
    )
    # What held when it was proposed: mode, auto_correct_max_value, auto_correct_max_qty.
    limits = models.JSONField(default=dict)
    explanation = models.JSONField(null=True)
    snapshot = models.ForeignKey(Snapshot, models.PROTECT, null=True, related_name="corrections")
    evidence = models.JSONField(help_text="The broker's position as it was read.", null=True)
    watermark = models.DateTimeField(help_text="When the broker was asked (database clock).")
    # Empty: Ordinis proposed it.
    proposed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    reason = models.TextField(blank=True, help_text="Why a person proposed it.")
    proposed_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PROPOSED)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)
    comment = models.TextField(blank=True)
    # Applied by Ordinis itself, within the account's limits.
    automatic = models.BooleanField(default=False)
    # Decided by its proposer, the only person of the account's, who typed the account's name.
    self_decided = models.BooleanField(default=False)
    ledger_entry = models.OneToOneField(
        LedgerEntry, models.PROTECT, null=True, related_name="correction"
    )
    cash_entry = models.OneToOneField(
        CashEntry, models.PROTECT, null=True, related_name="correction"
    )
    # Of a trade: the order that was decided on. Committed before it is sent, so never sent twice.
    client_order_id = models.CharField(max_length=48, blank=True)
    order = models.ForeignKey(Order, models.PROTECT, null=True, related_name="+")
    # Of a trade that was not taken: why.
    problem = models.TextField(blank=True)

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
                | ~Q(decided_by=F("proposed_by"))
                | Q(self_decided=True),
                name="decider_is_not_the_proposer",
            ),
            models.CheckConstraint(
                condition=(
                    Q(status="applied")
                    & (Q(decided_by__isnull=False) | Q(automatic=True, proposed_by=None))
                    & (
                        Q(kind="trade") & ~Q(client_order_id="")
                        | Q(kind="cash", cash_entry__isnull=False)
                        | (~Q(kind__in=("trade", "cash")) & Q(ledger_entry__isnull=False))
                    )
                )
                | (
                    ~Q(status="applied")
                    & Q(ledger_entry=None, cash_entry=None, client_order_id="", automatic=False)
                ),
                name="correction_applied_with_its_entry",
            ),
        ]

    def __str__(self) -> str:
        size = f"{abs(self.difference).normalize():,f}"
        if self.kind == self.Kind.TRADE:  # it brings the broker back to us: the other way round
            return f"{'sell' if self.difference > 0 else 'buy'} {size} {self.position}"
        sign = "\N{MINUS SIGN}" if self.difference < 0 else "+"
        if self.kind == self.Kind.CASH:
            return f"{sign}${abs(self.difference):,.2f} of cash"
        return f"{sign}{size} {self.position}"

    @property
    def difference(self) -> Decimal:
        """Shares (dollars for cash) that the correction adds to the book."""
        return self.broker - self.local

    @property
    def actor(self) -> str:
        return self.proposed_by.get_username() if self.proposed_by else "Ordinis"


class Rebuild(models.Model):
    """The book taken over from the broker anew, by a person, in an emergency. Append-only."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="rebuilds")
    snapshot = models.ForeignKey(Snapshot, models.PROTECT, null=True, related_name="+")
    actor = models.CharField(max_length=150)
    reason = models.TextField()
    at = models.DateTimeField(db_default=Now())
    # [{"symbol", "before", "after", "average_price_before", "average_price_after"}]
    changes = models.JSONField(default=list)
    cash_before = models.DecimalField(max_digits=24, decimal_places=9, null=True)
    cash_after = models.DecimalField(max_digits=24, decimal_places=9, null=True)

    class Meta:
        ordering = ("-at", "-pk")
        permissions = [("rebuild_book", "Can rebuild the book from the broker")]

    def __str__(self) -> str:
        return f"{self.account}, {self.at:%Y-%m-%d %H:%M:%S}"


class DailyReport(models.Model):
    """What a day of the exchange was, as it stood after its close."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="daily_reports")
    day = models.DateField(help_text="The exchange's date.")
    made_at = models.DateTimeField(db_default=Now())
    figures = models.JSONField()

    class Meta:
        ordering = ("-day", "account")
        constraints = [
            models.UniqueConstraint(fields=("account", "day"), name="one_report_a_day"),
        ]

    def __str__(self) -> str:
        return f"{self.account}, {self.day}"

    @property
    def is_final(self) -> bool:
        return bool(self.figures.get("final"))
