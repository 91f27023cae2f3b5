"""Orders, their history and their fills.

Only `orders.lifecycle` changes an order's status or fills. History rows are append-only, held by
a trigger, and each carries a hash over the one before.
"""

import hashlib
import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from orders import statuses
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.broker.port import OrderRequest
from positions.models import LedgerEntry


class Order(models.Model):
    """One intent of one strategy, and what became of it. At most one order at the broker."""

    class Side(models.TextChoices):
        BUY = "buy", "Buy"
        SELL = "sell", "Sell"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="orders")
    strategy = models.ForeignKey(Strategy, models.PROTECT, related_name="orders")
    client_order_id = models.CharField(max_length=48)
    broker_order_id = models.CharField(max_length=64, null=True)  # noqa: DJ001 unique, so not ""
    # Of the request as parsed: the same id with another body is refused.
    fingerprint = models.CharField(max_length=64)

    symbol = models.CharField(max_length=16)
    side = models.CharField(max_length=4, choices=Side.choices)
    qty = models.DecimalField(max_digits=20, decimal_places=9)
    type = models.CharField(max_length=16)
    time_in_force = models.CharField(max_length=8)
    extended_hours = models.BooleanField(default=False)
    reference_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    limit_price = models.DecimalField(max_digits=20, decimal_places=9)

    status = models.TextField()  # the broker may invent one, of any length
    filled_qty = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    average_fill_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    violations = models.JSONField(default=list, help_text="Why our risk checks denied it.")
    rejection = models.JSONField(null=True, help_text="What the broker refused it with.")

    correlation_id = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    # When it was last handed to the broker, and how often.
    submitted_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    # Database time at which the broker's word that it exists had reached us (DESIGN, "What an
    # order commits"); empty while it is unproved.
    acknowledged_at = models.DateTimeField(null=True)
    broker_updated_at = models.DateTimeField(null=True)
    # Look-ups by client id that found nothing since the answer was lost.
    lookups_missed = models.PositiveSmallIntegerField(default=0)
    first_missed_at = models.DateTimeField(null=True)
    # The length of the history, and the hash of its last row.
    history_length = models.PositiveIntegerField(default=0)
    history_hash = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = [
            models.UniqueConstraint(
                fields=("account", "client_order_id"), name="client_order_id_unique"
            ),
            models.UniqueConstraint(
                fields=("account", "broker_order_id"), name="broker_order_id_unique"
            ),
            models.CheckConstraint(condition=Q(qty__gt=0), name="order_qty_positive"),
            models.CheckConstraint(
                condition=Q(filled_qty__gte=0), name="order_filled_qty_not_negative"
            ),
        ]
        indexes = [
            models.Index(fields=("strategy", "-created_at", "-id"), name="orders_by_strategy"),
            models.Index(fields=("account", "-created_at", "-id"), name="orders_by_account"),
            models.Index(
                fields=("account", "symbol"),
                condition=~Q(status__in=sorted(statuses.CLOSED)),
                name="orders_open",
            ),
            models.Index(fields=("account", "acknowledged_at"), name="orders_by_acknowledgement"),
            models.Index(fields=("account", "symbol", "updated_at"), name="orders_moved_lately"),
            models.Index(
                fields=("strategy", "symbol", "-created_at", "-id"), name="orders_by_symbol"
            ),
        ]

    def __str__(self) -> str:
        return self.client_order_id

    @property
    def is_open(self) -> bool:
        return statuses.is_open(self.status)

    @property
    def state(self) -> str:
        return statuses.state(self.status, filled=bool(self.filled_qty))

    @property
    def pending_qty(self) -> Decimal:
        """Shares that may still fill."""
        return max(self.qty - self.filled_qty, Decimal(0)) if self.is_open else Decimal(0)

    @property
    def signed(self) -> int:
        return 1 if self.side == self.Side.BUY else -1

    @property
    def request(self) -> OrderRequest:
        """What the broker is sent, the first time and every time after."""
        return OrderRequest(
            client_order_id=self.client_order_id,
            symbol=self.symbol,
            side=self.side,
            qty=self.qty,
            type=self.type,
            time_in_force=self.time_in_force,
            limit_price=self.limit_price,
            extended_hours=self.extended_hours,
        )


class OrderHistory(models.Model):
    """One step of an order: what changed, when there, when we learnt it, from whom and why."""

    class Source(models.TextChoices):
        API = "api", "API"
        RISK = "risk", "Risk checks"
        SUBMIT = "submit", "Broker's answer"
        STREAM = "stream", "Broker's stream"
        POLL = "poll", "Poll"
        RECONCILE = "reconcile", "Reconciliation"
        OPERATOR = "operator", "Operator"

    order = models.ForeignKey(Order, models.PROTECT, related_name="history")
    seq = models.PositiveIntegerField()
    from_status = models.TextField(blank=True)
    to_status = models.TextField()
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()
    source = models.CharField(max_length=12, choices=Source.choices)
    actor = models.CharField(max_length=150)
    reason = models.TextField(blank=True)
    report = models.JSONField(null=True, help_text="The broker's own words.")
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("order", "seq")
        verbose_name_plural = "order history"
        constraints = [
            models.UniqueConstraint(fields=("order", "seq"), name="history_seq_unique"),
        ]
        indexes = [models.Index(fields=("received_at",), name="history_by_time")]

    def __str__(self) -> str:
        return f"{self.order} {self.seq}: {self.to_status}"

    def digest(self, before: str) -> str:
        """The hash of this row over the one before; `verify` computes it again."""
        content: list[Any] = [
            before,
            str(self.order_id),
            self.seq,
            self.from_status,
            self.to_status,
            _moment(self.occurred_at),
            _moment(self.received_at),
            self.source,
            self.actor,
            self.reason,
            self.report,
        ]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Fill(models.Model):
    """Shares that changed hands for an order, at their own price.

    Inferred where the broker gave a cumulative figure and no execution; when the execution comes
    later the inferred fill is recognised as it, and nothing moves again.
    """

    order = models.ForeignKey(Order, models.PROTECT, related_name="fills")
    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="+")
    execution_id = models.CharField(max_length=80, null=True)  # noqa: DJ001 unique, so not ""
    qty = models.DecimalField(max_digits=20, decimal_places=9)
    price = models.DecimalField(max_digits=20, decimal_places=9)
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())
    inferred = models.BooleanField(default=False)
    # Several fills share one entry where an inferred one was later split into its executions.
    ledger_entry = models.ForeignKey(LedgerEntry, models.PROTECT, related_name="fills")

    class Meta:
        ordering = ("occurred_at", "id")
        constraints = [
            models.UniqueConstraint(
                fields=("account", "execution_id"), name="execution_booked_once"
            ),
            models.CheckConstraint(condition=Q(qty__gt=0), name="fill_qty_positive"),
            models.CheckConstraint(
                condition=Q(inferred=True, execution_id=None)
                | Q(inferred=False, execution_id__isnull=False),
                name="fill_inferred_or_executed",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.qty:f} at {self.price:f}"


class StreamMessage(models.Model):
    """One message of the broker's stream, stored before anything is made of it.

    Only `orders.stream_store` writes here. The broker's words stay as they came, but for secrets.
    """

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="+")
    # The broker's own name of the event, which sorts by time: compared byte by byte.
    event_id = models.CharField(max_length=64, null=True, db_collation="C")  # noqa: DJ001 unique
    broker_order_id = models.CharField(max_length=64, blank=True)
    received_at = models.DateTimeField()
    body = models.JSONField()
    # Stored while something before it may still be missing: the next gap starts before it.
    after_gap = models.BooleanField(default=False)
    processed_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="That failed.")
    retry_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=("account", "event_id"), name="event_stored_once"),
        ]
        indexes = [
            models.Index(
                fields=("account", "event_id", "id"),
                condition=Q(processed_at=None),
                name="stream_unprocessed",
            ),
            models.Index(fields=("account",), condition=Q(after_gap=True), name="stream_after_gap"),
            models.Index(fields=("received_at",), name="stream_by_time"),
        ]

    def __str__(self) -> str:
        return self.event_id or f"message {self.pk}"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds")
