"""Risk limits and pricing offsets: every change is a new version; none is ever edited.

A field left empty falls back: a strategy's to its account's, the account's to the default.
"""

from decimal import Decimal

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount, Strategy

ORDER_TYPES = ("limit", "market", "stop", "stop_limit", "trailing_stop")
_NOT_NEGATIVE = MinValueValidator(Decimal(0))


class RiskLimits(models.Model):
    """One version of the limits of an account, or of one of its strategies."""

    class OffsetMode(models.TextChoices):
        BPS = "bps", "Basis points"
        ABSOLUTE = "absolute", "Dollars"

    class ReconcileMode(models.TextChoices):
        OFF = "off", "Off: the account is not watched"
        READ_ONLY = "read_only", "Read only: differences are reported"
        MANUAL = "manual", "Manual: corrections wait for a person"

    class DependentsActivation(models.TextChoices):
        AT_END = "at_end", "When the parent has ended"
        AS_IT_FILLS = "as_it_fills", "Share by share, as the parent fills"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="limits")
    strategy = models.ForeignKey(
        Strategy,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="limits",
        help_text="Empty: the limits of the whole account.",
    )
    version = models.PositiveIntegerField(editable=False)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, editable=False, related_name="+"
    )
    actor = models.CharField(max_length=150, editable=False, help_text="Who made the change.")
    reason = models.TextField(help_text="Why. It stays in the history.")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    buying_power_buffer_pct = models.DecimalField(
        max_digits=5,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[_NOT_NEGATIVE, MaxValueValidator(Decimal(100))],
        help_text="Share of buying power, in per cent, that no order may use.",
    )
    allowed_order_types = models.CharField(
        max_length=100,
        blank=True,
        help_text=f"Comma-separated, of {', '.join(ORDER_TYPES)}; limit always stays allowed. "
        "A strategy's own can only take away from its account's.",
    )
    duplicate_guard = models.BooleanField(
        null=True,
        blank=True,
        choices=((True, "Yes"), (False, "No")),
        error_messages={"invalid_nullable": "“%(value)s” is neither yes nor no."},
        help_text="Whether an open order like it answers in the place of a new one. A strategy's "
        "own can only switch it on.",
    )
    offset_mode = models.CharField(
        max_length=8,
        choices=OffsetMode.choices,
        blank=True,
        help_text="What the offsets are measured in.",
    )
    buy_offset = models.DecimalField(
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[_NOT_NEGATIVE],
        help_text="How far below the reference price a buy is limited.",
    )
    sell_offset = models.DecimalField(
        max_digits=12,
        decimal_places=4,
        null=True,
        blank=True,
        validators=[_NOT_NEGATIVE],
        help_text="How far above the reference price a sell is limited.",
    )
    max_slippage_pct = models.DecimalField(
        max_digits=6,
        decimal_places=3,
        null=True,
        blank=True,
        validators=[_NOT_NEGATIVE, MaxValueValidator(Decimal(100))],
        help_text="The most, in per cent, that a limit price may differ from its reference.",
    )
    dependents_activation = models.CharField(
        max_length=12,
        choices=DependentsActivation.choices,
        blank=True,
        help_text="When take-profit and stop-loss orders are sent (account only).",
    )
    reconcile_mode = models.CharField(
        max_length=10,
        choices=ReconcileMode.choices,
        blank=True,
        help_text="What happens when the book and the broker differ (account only).",
    )

    class Meta:
        ordering = ("account", "strategy", "-version")
        verbose_name = "risk limits"
        verbose_name_plural = "risk limits"
        constraints = [
            models.UniqueConstraint(
                fields=("account", "strategy", "version"),
                nulls_distinct=False,
                name="limits_version_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy or self.account}, version {self.version}"

    def clean(self) -> None:
        """Brings the order types into one spelling: sorted, without spaces, limit among them."""
        if not self.allowed_order_types:
            return
        types = {part.strip() for part in self.allowed_order_types.split(",")} - {""} | {"limit"}
        if unknown := sorted(types.difference(ORDER_TYPES)):
            raise ValidationError(
                {
                    "allowed_order_types": f"{', '.join(unknown)}: not an order type. "
                    f"Known: {', '.join(ORDER_TYPES)}."
                }
            )
        self.allowed_order_types = ",".join(sorted(types))
