"""Instruments, the append-only ledger, and positions: ours beside the broker's.

A position's own quantity is the sum of its ledger entries; only `positions.ledger` writes both.
The broker's columns are only what it last told us, and are never added to ours.
"""

from decimal import Decimal

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount, Strategy

UNKNOWN_SECTOR = "Unknown"


class Instrument(models.Model):
    """A symbol and the sector (GICS-like) it counts towards."""

    symbol = models.CharField(max_length=32, primary_key=True)
    name = models.CharField(max_length=120)
    sector = models.CharField(max_length=60, verbose_name="sector (GICS-like)")
    sub_industry = models.CharField(max_length=80, blank=True)
    source = models.CharField(max_length=120, help_text="Where the sector comes from.")
    as_of = models.DateField(help_text="When the source was read.")
    # What a person says it is, over what the source says.
    override_sector = models.CharField(max_length=60, blank=True)
    override_reason = models.TextField(blank=True)
    overridden_by = models.CharField(max_length=150, blank=True)
    overridden_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("symbol",)

    def __str__(self) -> str:
        return self.symbol

    @property
    def counts_as(self) -> str:
        """The sector that limits count it towards."""
        return self.override_sector or self.sector or UNKNOWN_SECTOR


class SectorChange(models.Model):
    """Who changed sectors, when and why: an import, or the override of one symbol. Append-only."""

    class Kind(models.TextChoices):
        IMPORT = "import", "Import"
        OVERRIDE = "override", "Override"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    symbol = models.CharField(max_length=32, blank=True)
    actor = models.CharField(max_length=150)
    reason = models.TextField()
    # An import: the rows that changed, each symbol with its sector before and after.
    changes = models.JSONField(default=list)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-at", "-pk")

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.symbol}".strip()


class Position(models.Model):
    """One symbol in one account; a row exists once either side has held it."""

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        CLOSED = "closed", "Closed"

    class ClosedReason(models.TextChoices):
        BY_ORDER = "closed_by_order", "Closed by an order"
        EXTERNALLY = "closed_externally", "Closed outside Ordinis"
        CORRECTED = "corrected", "Closed by a correction"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="positions")
    symbol = models.CharField(max_length=32)
    # Ours: shares, signed (a short is negative); average cost in dollars a share.
    qty = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.CLOSED)
    closed_reason = models.CharField(max_length=20, choices=ClosedReason.choices, blank=True)
    # The number of the latest ledger entry: what a correction compares before it is applied.
    ledger_version = models.PositiveIntegerField(default=0)
    # Dollars, the sums over its ledger: what sales have earned over their cost, and what its fills
    # paid (negative) or brought in.
    realized_profit = models.DecimalField(max_digits=24, decimal_places=9, default=Decimal(0))
    cash_flow = models.DecimalField(max_digits=24, decimal_places=9, default=Decimal(0))
    updated_at = models.DateTimeField(db_default=Now())
    # When this one position was last compared with the broker by itself (database clock).
    compared_at = models.DateTimeField(null=True)
    # The last whole comparison in which it did not differ (database clock): what was known by then
    # explains no difference that was found later.
    agreed_at = models.DateTimeField(null=True)
    # The broker's, as of broker_as_of (the moment it was asked).
    broker_qty = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    broker_qty_available = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    broker_average_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    broker_market_value = models.DecimalField(max_digits=20, decimal_places=4, null=True)
    broker_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    broker_as_of = models.DateTimeField(null=True)

    class Meta:
        ordering = ("symbol",)
        constraints = [
            models.UniqueConstraint(
                fields=("account", "symbol"), name="one_position_per_account_and_symbol"
            ),
            models.CheckConstraint(
                condition=Q(qty=0, status="closed") | (~Q(qty=0) & Q(status="open")),
                name="position_open_while_shares_are_held",
            ),
        ]

    def __str__(self) -> str:
        return self.symbol

    @property
    def drift_qty(self) -> Decimal:
        """The broker's shares less ours."""
        return self.broker_qty - self.qty

    @property
    def drift_value(self) -> Decimal | None:
        """The drift in dollars at the broker's price, else at either side's average."""
        price = self.broker_price or self.broker_average_price or self.average_price
        return None if price is None else self.drift_qty * price


class LedgerEntry(models.Model):
    """One reason why a position changed. Append-only: a trigger refuses update and delete."""

    class Kind(models.TextChoices):
        OPENING = "opening", "Opening"
        FILL = "fill", "Fill"
        CORRECTION = "correction", "Correction"
        SPLIT = "split", "Split"
        CORPORATE_ACTION = "corporate_action", "Other corporate action"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="ledger")
    position = models.ForeignKey(Position, models.PROTECT, related_name="ledger")
    seq = models.PositiveIntegerField(help_text="1, 2, 3 … within the position.")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    cause = models.CharField(
        max_length=120, help_text="What made it: an order, a correction, the opening."
    )
    strategy = models.ForeignKey(Strategy, models.PROTECT, null=True, related_name="+")
    qty = models.DecimalField(max_digits=20, decimal_places=9, help_text="Shares, signed.")
    price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    qty_after = models.DecimalField(max_digits=20, decimal_places=9)
    average_price_after = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    # Dollars earned over cost by the shares that this entry takes away; 0 where a price is unknown.
    realized_profit = models.DecimalField(max_digits=24, decimal_places=9, default=Decimal(0))
    occurred_at = models.DateTimeField(help_text="When it happened at the broker.")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("position", "seq")
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(fields=("position", "seq"), name="ledger_seq_unique"),
            models.UniqueConstraint(
                fields=("account", "kind", "cause"), name="ledger_cause_booked_once"
            ),
            # A correction of the average price alone moves no shares.
            models.CheckConstraint(
                condition=~Q(qty=0) | Q(kind="correction"), name="ledger_entry_moves_something"
            ),
        ]
        indexes = [models.Index(fields=("account", "recorded_at"), name="ledger_by_time")]

    def __str__(self) -> str:
        return f"{self.position} {self.seq}: {self.qty:+f}"


class CashEntry(models.Model):
    """Dollars that came or went otherwise than by our own fills. Append-only.

    The cash of the book is the sum of these and of what fills paid and brought in
    (`Position.cash_flow`).
    """

    class Kind(models.TextChoices):
        OPENING = "opening", "Opening"
        EXTERNAL_TRADE = "external_trade", "Trade made outside Ordinis"
        ACTIVITY = "activity", "Dividend, fee, deposit or other activity"
        CORRECTION = "correction", "Correction"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="cash_entries")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    cause = models.CharField(max_length=120, help_text="What made it: an activity, a correction.")
    amount = models.DecimalField(
        max_digits=24, decimal_places=9, help_text="Dollars, negative when they went."
    )
    words = models.TextField(blank=True, help_text="The broker's own words on it.")
    occurred_at = models.DateTimeField(help_text="When it happened at the broker.")
    recorded_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-occurred_at", "-pk")
        verbose_name_plural = "cash entries"
        constraints = [
            models.UniqueConstraint(
                fields=("account", "kind", "cause"), name="cash_cause_booked_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount:+f}"
