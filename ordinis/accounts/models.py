"""Broker accounts, strategies, and the tokens strategies use.

A token is stored only as a hash. Never delete an account or a strategy: orders rest on them.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

SCOPES: Final = ("read", "trade", "operate")
# The strategy in whose name a person closes positions: no program's, so it has no token.
OPERATOR: Final = "operator"
_NAME = RegexValidator(
    r"^[a-z0-9][a-z0-9_-]{0,47}$",
    "Use 1 to 48 lower-case letters, digits, - or _, starting with a letter or digit.",
)


class BrokerAccount(models.Model):
    """An account at a broker, and its figures as last read there (dollars)."""

    class Mode(models.TextChoices):
        SIMULATED = "simulated", "Simulated"
        PAPER = "paper", "Paper"
        LIVE = "live", "Live"

    name = models.CharField(max_length=48, unique=True, validators=[_NAME])
    broker = models.CharField(max_length=20)
    mode = models.CharField(max_length=10, choices=Mode.choices)
    # The broker's own number, pinned when the book was opened: other keys must not move it.
    account_number = models.CharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the book was first taken over from the broker; before that no order is accepted.
    opened_at = models.DateTimeField(null=True, editable=False)

    equity = models.DecimalField(max_digits=20, decimal_places=4, null=True, editable=False)
    cash = models.DecimalField(max_digits=20, decimal_places=4, null=True, editable=False)
    buying_power = models.DecimalField(max_digits=20, decimal_places=4, null=True, editable=False)
    as_of = models.DateTimeField(null=True, editable=False)
    # When the book was last compared with the broker completely (or taken over from it).
    books_as_of = models.DateTimeField(null=True, editable=False)
    # Seconds between two comparisons that are due at present: more while the market is closed.
    cadence_seconds = models.PositiveIntegerField(null=True, editable=False)

    # While all orders are being cancelled no new one is taken: until when, of which symbol ("":
    # all), and for which runs. The bar falls by itself should they die.
    cancelling_until = models.DateTimeField(null=True, editable=False)
    cancelling_symbol = models.CharField(max_length=16, blank=True, editable=False)
    cancelling_runs = ArrayField(models.UUIDField(), default=list, editable=False)

    database_time: datetime  # of `lock` only

    class Meta:
        ordering = ("name",)
        verbose_name = "account"
        constraints = [
            # Two books of one broker account would each spend its money and sell its shares.
            models.UniqueConstraint(
                fields=("broker", "mode", "account_number"),
                condition=~Q(account_number=""),
                name="one_book_per_broker_account",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def cadence(self) -> timedelta:
        """How often the book is to be compared at present: ages are judged against it (SPEC R3)."""
        return timedelta(seconds=self.cadence_seconds or settings.RECONCILE_SECONDS)

    @classmethod
    def served(cls) -> "models.QuerySet[BrokerAccount]":
        """The accounts at the broker that this process is set up for."""
        return cls.objects.filter(broker=settings.ORDINIS_BROKER, mode=settings.BROKER_MODE)

    @classmethod
    def lock(cls, pk: int) -> "BrokerAccount":
        """The account, locked until the transaction ends. Taken before any order or position.

        `database_time` is when the transaction began, on the clock that all processes share.
        """
        rows = BrokerAccount.objects.annotate(transaction_began=Now())
        account = rows.select_for_update(no_key=True).get(pk=pk)
        account.database_time = account.transaction_began
        return account


class RequestBudget(models.Model):
    """The broker's latest word on how many requests the account may make, for all processes."""

    account = models.OneToOneField(BrokerAccount, models.CASCADE, related_name="request_budget")
    limit = models.PositiveIntegerField(default=0, help_text="Requests a window.")
    remaining = models.PositiveIntegerField(default=0)
    reset_at = models.DateTimeField(null=True, help_text="When the window starts anew.")
    # Requests that had to wait for more urgent ones.
    held_back = models.PositiveIntegerField(default=0)
    last_held_back_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.remaining} of {self.limit}"


class Strategy(models.Model):
    """A program that sends orders to one account."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="strategies")
    name = models.CharField(max_length=48, validators=[_NAME])
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "strategies"
        constraints = [
            models.UniqueConstraint(
                fields=("account", "name"), name="one_strategy_of_a_name_per_account"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ApiToken(models.Model):
    """A strategy's key to the API. The token itself is shown once and never stored."""

    strategy = models.ForeignKey(Strategy, models.PROTECT, related_name="tokens")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField(max_length=12, editable=False, help_text="How the token begins.")
    scopes = ArrayField(models.CharField(max_length=10, choices=[(s, s) for s in SCOPES]))
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-created_at",)
        verbose_name = "API token"
        constraints = [
            models.CheckConstraint(
                condition=Q(scopes__contained_by=list(SCOPES)), name="token_scopes_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.strategy} {self.hint}…"

    @classmethod
    def issue(
        cls, strategy: Strategy, scopes: tuple[str, ...], expires_at: datetime | None = None
    ) -> "tuple[ApiToken, str]":
        """Makes a token; the string returned beside it can never be read again."""
        unknown = set(scopes) - set(SCOPES)
        if strategy.name == OPERATOR:
            raise ValueError(f"{OPERATOR} is the name of the person at the console; take another.")
        if unknown or not scopes:
            raise ValueError(
                f"Unknown scope {', '.join(sorted(unknown)) or '(none)'}; "
                f"choose from {', '.join(SCOPES)}."
            )
        secret = "ord_" + secrets.token_urlsafe(32)
        token = cls.objects.create(
            strategy=strategy,
            digest=_digest(secret),
            hint=secret[:8],
            scopes=list(scopes),
            expires_at=expires_at,
        )
        return token, secret

    @classmethod
    def authenticate(cls, secret: str) -> "ApiToken | None":
        """The valid token of this string, or None; notes its use at most once a minute."""
        valid = Q(revoked_at=None) & (Q(expires_at=None) | Q(expires_at__gt=Now()))
        token = (
            ApiToken.objects.select_related("strategy__account")
            .annotate(
                stale_use=models.ExpressionWrapper(
                    Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1)),
                    output_field=models.BooleanField(),
                )
            )
            .filter(valid, digest=_digest(secret))
            .first()
        )
        if token is not None and token.stale_use:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=Now())
        return token

    def revoke(self) -> None:
        """Ends the token at once and for good."""
        type(self)._default_manager.filter(pk=self.pk, revoked_at=None).update(revoked_at=Now())


def _digest(secret: str) -> str:
    # Tokens carry 256 random bits, so a plain hash can't be searched; no stretching is needed.
    return hashlib.sha256(secret.encode()).hexdigest()
