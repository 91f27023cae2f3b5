"""Risk limits and pricing offsets, the trading state with its breaker, and the exchange's days.

Limits: every change is a new version; none is ever edited. A field left empty falls back: a
strategy's to its account's, the account's to the default. Trading states: only `risk.trading`
writes them; every change leaves a row that is never changed.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from ordinis.accounts.models import BrokerAccount, Strategy

ORDER_TYPES = ("limit", "market", "stop", "stop_limit", "trailing_stop")
SESSIONS = ("regular", "extended", "closed")
_SYMBOL = re.compile(r"[A-Z][A-Z0-9]{0,9}(\.[A-Z]{1,2})?")
_NOT_NEGATIVE = MinValueValidator(Decimal(0))
_ABOVE_ZERO = MinValueValidator(Decimal("0.000000001"))


def _percent(help_text: str, *, most: int = 100) -> "models.DecimalField[Any, Any]":
    return models.DecimalField(
        max_digits=6,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[_NOT_NEGATIVE, MaxValueValidator(Decimal(most))],
        help_text=help_text,
    )


def _count(help_text: str, *, least: int = 0, most: int = 1_000_000) -> Any:
    return models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(least), MaxValueValidator(most)],
        help_text=help_text,
    )


def _amount(help_text: str, *, places: int = 2, validator: Any = _NOT_NEGATIVE) -> Any:
    return models.DecimalField(
        max_digits=20,
        decimal_places=places,
        null=True,
        blank=True,
        validators=[validator],
        help_text=help_text,
    )


def _yes_or_no(help_text: str) -> Any:
    return models.BooleanField(
        null=True,
        blank=True,
        choices=((True, "Yes"), (False, "No")),
        error_messages={"invalid_nullable": "“%(value)s” is neither yes nor no."},
        help_text=help_text,
    )


class RiskLimits(models.Model):
    """One version of the limits of an account, or of one of its strategies."""

    class OffsetMode(models.TextChoices):
        BPS = "bps", "Basis points"
        ABSOLUTE = "absolute", "Dollars"

    class ReconcileMode(models.TextChoices):
        OFF = "off", "Off: the account is not watched"
        READ_ONLY = "read_only", "Read only: differences are reported"
        MANUAL = "manual", "Manual: corrections wait for a person"
        AUTOMATIC = "automatic", "Automatic: small ones are made by themselves, others wait"

    class Status(models.TextChoices):
        APPROVED = "approved", "In order"
        PROPOSED = "proposed", "Waiting for a second person"
        REJECTED = "rejected", "Rejected"

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

    max_positions = _count("Symbols that may be held or be on the way at once.", most=100_000)
    max_position_pct = _percent(
        "The most of one symbol, working orders included, in per cent of equity.", most=600
    )
    max_exposure_pct = _percent(
        "The sum of all positions, long and short, working orders included, in per cent of equity.",
        most=600,
    )
    max_net_exposure_pct = _percent(
        "Longs less shorts (or the reverse), working orders included, in per cent of equity.",
        most=600,
    )
    max_sector_pct = _percent(
        "The most of one sector, working orders included, in per cent of equity. Unknown is one.",
        most=600,
    )
    buying_power_buffer_pct = _percent("Share of buying power, in per cent, that no order may use.")
    max_order_qty = _amount("The most shares of one order.", places=9, validator=_ABOVE_ZERO)
    max_order_notional = _amount("The most dollars of one order.", validator=_ABOVE_ZERO)
    max_orders_per_minute = _count(
        "Orders taken in a minute: of the strategy, and of the account as a whole.", least=1
    )
    allowed_order_types = models.CharField(
        max_length=100,
        blank=True,
        help_text=f"Comma-separated, of {', '.join(ORDER_TYPES)}; limit always stays allowed. "
        "A strategy's own can only take away from its account's.",
    )
    allowed_symbols = models.TextField(
        blank=True, help_text="Comma-separated; empty: every symbol that the broker trades."
    )
    blocked_symbols = models.TextField(
        blank=True, help_text="Comma-separated: none of these may be bought or sold short."
    )
    allowed_sessions = models.CharField(
        max_length=40,
        blank=True,
        help_text=f"Comma-separated, of {', '.join(SESSIONS)}: when orders that add risk are "
        "taken. One taken while the exchange is closed waits at the broker for the open.",
    )
    allow_short = _yes_or_no("Whether shares may be sold short. A strategy's own can only forbid.")
    duplicate_guard = _yes_or_no(
        "Whether an open order like it answers in the place of a new one. A strategy's own can "
        "only switch it on."
    )
    breaker_error_rate_pct = _percent(
        "Share of failed orders, in per cent, above which the breaker opens (account only)."
    )
    breaker_window_seconds = _count(
        "Over how many seconds that share is taken (account only).", least=10, most=86_400
    )
    breaker_min_orders = _count(
        "From how many orders in the window on that share counts (account only).", least=1
    )
    breaker_consecutive_failures = _count(
        "So many failures in a row open the breaker (account only).", least=1
    )
    breaker_equity_drop_pct = _percent(
        "Loss of equity in the session, in per cent, that opens the breaker (account only)."
    )
    breaker_min_buying_power = _amount(
        "Buying power in dollars below which the breaker opens (account only)."
    )
    breaker_cooldown_seconds = _count(
        "How long the breaker stays open before one order may try (account only).",
        least=1,
        most=86_400,
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
    loosening_needs_approval = _yes_or_no(
        "Whether a change that loosens a limit waits for a second person (account only)."
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
    auto_correct_max_value = _amount(
        "In the mode automatic: the most dollars that a correction may be worth which nobody "
        "decides (account only)."
    )
    auto_correct_max_qty = _amount(
        "In the mode automatic: the most shares that it may move (account only).", places=9
    )
    drift_alert_value = _amount(
        "A difference of more dollars than this alerts; ten times as much is to act on "
        "(account only)."
    )

    # When it holds: from starts_at on; a temporary one ends by itself.
    starts_at = models.DateTimeField(db_default=Now(), editable=False)
    ends_at = models.DateTimeField(null=True, editable=False)
    # Where the end was given as a length: it counts from when the version begins to hold, which
    # is its approval where a second person is waited for.
    lasts = models.DurationField(null=True, editable=False)
    # The keys that this version changes, and what held before (key to text), for the history.
    changed = ArrayField(models.CharField(max_length=40), default=list, editable=False)
    before = models.JSONField(default=dict, editable=False)
    # A loosening that waits for a second person holds only once somebody else has agreed.
    status = models.CharField(
        max_length=10, choices=Status.choices, default=Status.APPROVED, editable=False
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, editable=False, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, editable=False)
    decision_comment = models.TextField(blank=True, editable=False)
    # Whether some of it may still hold, now or later: the rest is history.
    in_use = models.BooleanField(default=True, editable=False)

    class Meta:
        ordering = ("account", "strategy", "-version")
        verbose_name = "risk limits"
        verbose_name_plural = "risk limits"
        permissions = (("decide_risklimits", "Can decide on risk limits that wait"),)
        indexes = [
            # The order path reads these alone, however long the history is.
            models.Index(fields=("account",), condition=Q(in_use=True), name="limits_in_use"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("account", "strategy", "version"),
                nulls_distinct=False,
                name="limits_version_unique",
            ),
            models.CheckConstraint(
                condition=Q(decided_by=None) | Q(author=None) | ~Q(decided_by=F("author")),
                name="limits_decided_by_somebody_else",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy or self.account}, version {self.version}"

    def phase(self, now: datetime) -> str:
        """What has become of it, in a word or two."""
        if self.status == self.Status.REJECTED:
            return "Rejected"
        is_over = self.ends_at is not None and self.ends_at <= now
        if self.status == self.Status.PROPOSED:
            undecided = is_over and self.lasts is None
            return "Ended undecided" if undecided else "Waiting for a second person"
        if is_over:
            return "Ended"
        if not self.in_use:
            return "Replaced"
        if self.starts_at > now:
            return "Scheduled"
        return "In force" if self.ends_at is None else "Temporary"

    def clean(self) -> None:
        """Brings every list into one spelling: sorted, once each, without spaces. Limit orders
        stay allowed."""
        types = _listed(self.allowed_order_types)
        lists = {
            "allowed_order_types": types | {"limit"} if types else types,
            "allowed_sessions": _listed(self.allowed_sessions),
            "allowed_symbols": _listed(self.allowed_symbols.upper()),
            "blocked_symbols": _listed(self.blocked_symbols.upper()),
        }
        problems: dict[str, str] = {}
        for key, what, known in (
            ("allowed_order_types", "an order type", ORDER_TYPES),
            ("allowed_sessions", "a session", SESSIONS),
        ):
            if unknown := sorted(lists[key].difference(known)):
                problems[key] = f"{', '.join(unknown)}: not {what}. Known: {', '.join(known)}."
        for key in ("allowed_symbols", "blocked_symbols"):
            if unknown := sorted(each for each in lists[key] if not _SYMBOL.fullmatch(each)):
                problems[key] = (
                    f"{', '.join(unknown)}: not a symbol. Write them as the exchange does, with "
                    "commas between: TSLA,BRK.B."
                )
        if problems:
            raise ValidationError(problems)
        for key, values in lists.items():
            setattr(self, key, ",".join(sorted(values)))


def _listed(text: str) -> set[str]:
    return {part.strip() for part in text.split(",")} - {""}


class TradingControl(models.Model):
    """What an account's orders may do now: what a person set, and the circuit breaker (SPEC K6,
    K7). One row an account, made with its first order; changed under the account's lock."""

    class State(models.TextChoices):
        ACTIVE = "active", "Active"
        REDUCING = "reducing", "Reducing: only what closes positions"
        HALTED = "halted", "Halted: only cancels"

    class Breaker(models.TextChoices):
        CLOSED = "closed", "Closed"
        OPEN = "open", "Open"
        HALF_OPEN = "half_open", "Half-open: one order may try"

    account = models.OneToOneField(BrokerAccount, models.PROTECT, related_name="trading_control")
    # What a person set.
    state = models.CharField(max_length=10, choices=State.choices, default=State.ACTIVE)
    reason = models.TextField(blank=True)
    actor = models.CharField(max_length=150, blank=True)
    set_at = models.DateTimeField(null=True)
    # The breaker by outcomes: error rate, failures in a row, a refusal for funds.
    breaker = models.CharField(max_length=10, choices=Breaker.choices, default=Breaker.CLOSED)
    breaker_reasons = models.JSONField(default=list, help_text="What tripped it, with figures.")
    opened_at = models.DateTimeField(null=True)
    # When the cool-down ends and one order may try.
    retry_at = models.DateTimeField(null=True)
    # Trips without a success in between: each makes the cool-down longer.
    trips = models.PositiveSmallIntegerField(default=0)
    # The order that tries. Its outcome decides.
    probe = models.UUIDField(null=True)
    # Outcomes before this moment were dealt with and count no more.
    counted_from = models.DateTimeField(null=True)
    # Levels that hold it open as long as they last: equity, buying power.
    levels = models.JSONField(default=list)
    # When the figures were asked for by which the levels last changed: older ones don't.
    levels_as_of = models.DateTimeField(null=True)
    # A person overrides the breaker until a moment.
    override_until = models.DateTimeField(null=True)
    override_reason = models.TextField(blank=True)
    override_actor = models.CharField(max_length=150, blank=True)
    # The exchange's day, and the equity with which it began.
    session_day = models.DateField(null=True)
    session_equity = models.DecimalField(max_digits=20, decimal_places=4, null=True)

    clock: datetime  # of `risk.trading` only: the database's time at which the row was read

    class Meta:
        permissions = (
            ("halt_trading", "Can halt trading"),
            ("resume_trading", "Can resume trading and override the breaker"),
            ("flatten_positions", "Can flatten positions"),
        )
        constraints = [
            models.CheckConstraint(
                condition=Q(probe=None) | Q(breaker="half_open"), name="probe_only_half_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account}: {self.state}, breaker {self.breaker}"


class TradingChange(models.Model):
    """One change of the trading state or of the breaker: who or what, when and why. Append-only:
    a trigger refuses update and delete."""

    class Kind(models.TextChoices):
        PERSON = "person", "Set by a person"
        TRIPPED = "tripped", "The breaker opened"
        PROBE = "probe", "One order tries"
        CLOSED = "closed", "The breaker closed"
        OVERRIDE = "override", "The breaker overridden"
        SUSPEND = "suspend", "New orders barred at the broker"

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="trading_changes")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    from_state = models.CharField(max_length=20, blank=True)
    to_state = models.CharField(max_length=20, blank=True)
    reason = models.TextField()
    actor = models.CharField(max_length=150)
    figures = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("-at", "-pk")
        indexes = [models.Index(fields=("account", "-at"), name="trading_changes_by_account")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.from_state} to {self.to_state}"


class ExchangeDay(models.Model):
    """A day on which the exchange trades, by the broker's calendar: Eastern Time. A day of the
    calendar's span that has no row is closed."""

    day = models.DateField(primary_key=True)
    opens = models.TimeField()
    closes = models.TimeField()
    as_of = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ("day",)

    def __str__(self) -> str:
        return f"{self.day}: {self.opens:%H:%M} to {self.closes:%H:%M}"


class SelfTest(models.Model):
    """One run of `risk_selftest`: each control, and whether it fired."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="self_tests")
    ran_at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=150)
    passed = models.BooleanField()
    results = models.JSONField()

    class Meta:
        ordering = ("-ran_at",)

    def __str__(self) -> str:
        return f"{self.ran_at:%Y-%m-%d %H:%M}: {'passed' if self.passed else 'FAILED'}"
