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
from ordinis.broker.port import OrderRequest, StopLoss
from positions.models import LedgerEntry
from risk.checks import buying_power


class Order(models.Model):
    """One intent of one strategy, and what became of it. At most one order at the broker."""

    class Side(models.TextChoices):
        BUY = "buy", "Buy"
        SELL = "sell", "Sell"

    class Role(models.TextChoices):
        TAKE_PROFIT = "take_profit", "Take-profit"
        STOP_LOSS = "stop_loss", "Stop-loss"
        DEPENDENT = "dependent", "Dependent"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="orders")
    strategy = models.ForeignKey(Strategy, models.PROTECT, related_name="orders")
    # Ours have at most 48 characters; a replacement made in the broker's own app may have more.
    client_order_id = models.CharField(max_length=128)
    broker_order_id = models.CharField(max_length=64, null=True)  # noqa: DJ001 unique, so not ""
    # Of the request as parsed: the same id with another body is refused.
    fingerprint = models.CharField(max_length=64)

    # A dependent order waits for its parent's fill (SPEC O9).
    parent = models.ForeignKey("self", models.PROTECT, null=True, related_name="dependents")
    role = models.CharField(max_length=12, choices=Role.choices, blank=True)
    has_dependents = models.BooleanField(default=False, help_text="It, or one of its chain.")
    # "oco": sent with its stop-loss as its leg, which has no request of its own.
    order_class = models.CharField(max_length=8, blank=True)
    leg_of = models.ForeignKey("self", models.PROTECT, null=True, related_name="legs")
    # A replacement is an order of its own; `chain` is the id of the first order of its line.
    replaces = models.ForeignKey("self", models.PROTECT, null=True, related_name="replacements")
    chain = models.UUIDField(editable=False)

    symbol = models.CharField(max_length=16)
    side = models.CharField(max_length=4, choices=Side.choices)
    qty = models.DecimalField(max_digits=20, decimal_places=9)
    # Never more than what closes the position: `requested_qty` is what was asked for where it was
    # cut to that.
    reduce_only = models.BooleanField(default=False)
    requested_qty = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    # It adds to a short position (or opens one): it ties up buying power instead of shares.
    sells_short = models.BooleanField(default=False)
    type = models.CharField(max_length=16)
    time_in_force = models.CharField(max_length=8)
    extended_hours = models.BooleanField(default=False)
    reference_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    limit_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    stop_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    trail_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    trail_percent = models.DecimalField(max_digits=8, decimal_places=4, null=True)
    # Dollars a share that it may cost at most: what a buy, or a short sale, commits.
    worst_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)

    status = models.TextField()  # the broker may invent one, of any length
    filled_qty = models.DecimalField(max_digits=20, decimal_places=9, default=Decimal(0))
    average_fill_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    violations = models.JSONField(default=list, help_text="Why our risk checks denied it.")
    # Every check that judged it: code, limit, actual, whether it passed.
    verdict = models.JSONField(default=list)
    rejection = models.JSONField(null=True, help_text="What the broker refused it with.")

    correlation_id = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    # When it was last handed to the broker, and how often.
    submitted_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    # When it passed the checks: its age limit for being sent again counts from here.
    judged_at = models.DateTimeField(null=True)
    # When a dependent order that could not be sent yet is tried again.
    retry_at = models.DateTimeField(null=True)
    # Database time at which the broker's word that it exists had reached us (DESIGN, "What an
    # order commits"); empty while it is unproved.
    acknowledged_at = models.DateTimeField(null=True)
    broker_updated_at = models.DateTimeField(null=True)
    # Somebody wants it cancelled: it is asked for until the order has ended, and never sent again.
    cancel_requested_at = models.DateTimeField(null=True)
    cancel_sent_at = models.DateTimeField(null=True)
    # The broker took a trade of it back: its cumulative figures no longer say what was traded.
    executions_only = models.BooleanField(default=False)
    # Look-ups by client id that found nothing since the answer was lost.
    lookups_missed = models.PositiveSmallIntegerField(default=0)
    first_missed_at = models.DateTimeField(null=True)
    # The length of the history, and the hash of its last row.
    history_length = models.PositiveIntegerField(default=0)
    history_hash = models.CharField(max_length=64, blank=True)

    dependent_ids: list[str]  # of `orders.schemas.read_dependents` only

    class Meta:
        ordering = ("-created_at", "-id")
        permissions = [("cancel_order", "Can cancel an order")]
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
            models.Index(
                fields=("account", "-updated_at"),
                condition=Q(status__in=sorted(statuses.UNSUCCESSFUL)),
                name="orders_unsuccessful",
            ),
            models.Index(fields=("chain",), name="orders_by_chain"),
            models.Index(
                fields=("parent",), condition=Q(parent__isnull=False), name="orders_by_parent"
            ),
            models.Index(
                fields=("cancel_requested_at",),
                condition=Q(cancel_requested_at__isnull=False)
                & ~Q(status__in=sorted(statuses.CLOSED)),
                name="orders_to_cancel",
            ),
            models.Index(fields=("account", "symbol", "updated_at"), name="orders_moved_lately"),
            # The few that a person must look at, among all that ever were.
            models.Index(
                fields=("account",), condition=Q(executions_only=True), name="orders_busted"
            ),
            models.Index(
                fields=("account",),
                condition=Q(filled_qty__gt=models.F("qty")),
                name="orders_overfilled",
            ),
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
    def type_in_words(self) -> str:
        """Limit, Stop-limit …; the leg of a pair says that it is one."""
        words = self.type.replace("_", "-").capitalize()
        return f"{words} (one cancels the other)" if self.order_class or self.leg_of_id else words

    @property
    def pending_qty(self) -> Decimal:
        """Shares that may still fill."""
        return max(self.qty - self.filled_qty, Decimal(0)) if self.is_open else Decimal(0)

    @property
    def adds_risk(self) -> bool:
        """Whether it was judged as one that opens or adds to a position: only such need money."""
        return any(check["code"] == buying_power.CODE for check in self.verdict)

    @property
    def signed(self) -> int:
        return 1 if self.side == self.Side.BUY else -1

    def successor(self, **changes: Any) -> "Order":
        """An order of its chain, not stored yet, that is as this one but for `changes`."""
        same = (
            *("account", "strategy", "parent_id", "has_dependents", "role", "symbol", "side"),
            *("reduce_only", "sells_short"),
            *("qty", "type", "time_in_force", "extended_hours", "reference_price"),
            *("limit_price", "stop_price", "trail_price", "trail_percent", "worst_price"),
            "correlation_id",
        )
        values = {name: getattr(self, name) for name in same}
        return Order(**{**values, **changes, "id": uuid.uuid4(), "replaces": self})

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
            stop_price=self.stop_price,
            trail_price=self.trail_price,
            trail_percent=self.trail_percent,
            stop_loss=self._stop_loss,
        )

    @property
    def _stop_loss(self) -> StopLoss | None:
        if self.order_class != "oco":
            return None
        leg = self.legs.get()
        assert leg.stop_price is not None, "a stop-loss has a stop price"
        return StopLoss(stop_price=leg.stop_price, limit_price=leg.limit_price)


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
        DEPENDENTS = "dependents", "Dependents"

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
        indexes = [models.Index(fields=("account", "recorded_at"), name="fills_by_time")]

    def __str__(self) -> str:
        return f"{self.qty:f} at {self.price:f}"


class BoundClientOrderId(models.Model):
    """A client order id that asked for an order which stood already: it is bound to that order
    for ever (SPEC O6)."""

    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="+")
    client_order_id = models.CharField(max_length=48)
    fingerprint = models.CharField(max_length=64)
    order = models.ForeignKey(Order, models.PROTECT, related_name="bound_ids")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=("account", "client_order_id"), name="client_order_id_bound_once"
            ),
        ]

    def __str__(self) -> str:
        return self.client_order_id


class Bust(models.Model):
    """The broker took a trade back, or corrected it, after it was told. A person decides what
    follows; the ledger is not touched."""

    class Kind(models.TextChoices):
        BUST = "trade_bust", "Trade taken back"
        CORRECT = "trade_correct", "Trade corrected"

    order = models.ForeignKey(Order, models.PROTECT, related_name="busts")
    account = models.ForeignKey(BrokerAccount, models.PROTECT, related_name="+")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    execution_id = models.CharField(max_length=80)
    previous_execution_id = models.CharField(max_length=80, blank=True)
    qty = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField(db_default=Now())
    report = models.JSONField(help_text="The broker's own words.")

    class Meta:
        ordering = ("occurred_at", "id")
        constraints = [
            models.UniqueConstraint(fields=("account", "execution_id"), name="bust_told_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.previous_execution_id or self.execution_id}"


class Event(models.Model):
    """A transition or a fill as the event feed tells it (SPEC O13).

    Written with what it tells, without a number; `orders.events` numbers it when it is first read,
    one strategy at a time, so that nobody who has seen N ever meets a smaller one later.
    """

    class Kind(models.TextChoices):
        TRANSITION = "transition", "Transition"
        FILL = "fill", "Fill"

    strategy = models.ForeignKey(Strategy, models.PROTECT, related_name="events")
    seq = models.PositiveBigIntegerField(null=True)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    order = models.ForeignKey(Order, models.PROTECT, related_name="events")
    status = models.TextField()
    from_status = models.TextField(blank=True)
    filled_qty = models.DecimalField(max_digits=20, decimal_places=9)
    average_fill_price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    execution_id = models.CharField(max_length=80, null=True)  # noqa: DJ001 as a fill's
    qty = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    price = models.DecimalField(max_digits=20, decimal_places=9, null=True)
    occurred_at = models.DateTimeField()
    received_at = models.DateTimeField()

    class Meta:
        ordering = ("strategy", "seq")
        constraints = [
            models.UniqueConstraint(fields=("strategy", "seq"), name="event_seq_unique"),
        ]
        indexes = [
            models.Index(
                fields=("strategy", "id"), condition=Q(seq=None), name="events_without_number"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.seq or ''} of {self.order_id}"


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
