"""What a daily report counts, read from the tables: each function one or two queries, bounded by
the span and the account. Reads only; asks nobody.

Everything counts by when it was recorded, so that a span that is over stays as it was counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection
from django.db.models import Count, DecimalField, Exists, F, OuterRef, Q, Sum
from django.db.models.functions import Coalesce

from orders import statuses
from orders.models import Fill, Order
from ordinis.accounts.models import OPERATOR, BrokerAccount
from positions.models import CashEntry, LedgerEntry, Position
from positions.sectors import sector_of
from reconciliation.models import BrokerActivity, Snapshot
from risk.breaker import is_for_funds

# Refusals of a day whose words are read: the newest.
_REFUSALS_READ: Final = 5000
_ZERO = Decimal(0)
FILL: Final = "FILL"  # what the broker calls a trade among its activities

# How an order of a day came out, from its status.
OUTCOMES: Final = (
    *("filled", "cancelled", "denied", "rejected", "never_arrived", "unresolved"),
    *("waiting", "open"),
)
_OUTCOME: Final = {
    "filled": "filled",
    statuses.CANCELED: "cancelled",
    "expired": "cancelled",
    statuses.REPLACED: "cancelled",
    statuses.DENIED: "denied",
    statuses.REJECTED: "rejected",
    statuses.FAILED: "never_arrived",
    statuses.UNRESOLVED: "unresolved",
    statuses.CREATED: "waiting",
    statuses.WAITING: "waiting",
}


_COMPARISONS: Final = """
    SELECT count(*) AS runs,
        count(*) FILTER (WHERE complete) AS complete,
        coalesce(sum(compared_count) FILTER (WHERE complete), 0) AS compared,
        coalesce(sum(jsonb_array_length(zombies) + jsonb_array_length(orphans)
            + jsonb_array_length(quantity_drifts)) FILTER (WHERE complete), 0) AS differed,
        coalesce(sum(duration_seconds) FILTER (WHERE complete), 0) AS seconds,
        max(duration_seconds) FILTER (WHERE complete) AS longest,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_seconds)
            FILTER (WHERE complete) AS p95
    FROM reconciliation_reconciliationreport
    WHERE account_id = %s AND started_at >= %s AND started_at < %s AND NOT dry_run
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Of one account, from a moment up to, and without, another."""

    account: BrokerAccount
    start: datetime
    end: datetime

    def of(self, field: str) -> dict[str, datetime]:
        return {f"{field}__gte": self.start, f"{field}__lt": self.end}


def outcome(status: str) -> str:
    """The group that a status counts in; what the broker invents counts as open."""
    return _OUTCOME.get(status, "open")


def orders(span: Span) -> list[dict[str, Any]]:
    """By strategy and status: orders, those sent, in error, acknowledged; signals and those of
    them that executed. The leg of a pair is sent with its order and counts for none."""
    asked_for = Q(parent=None) | Q(role=Order.Role.DEPENDENT)
    is_signal = asked_for & Q(replaces=None) & ~Q(strategy__name=OPERATOR)
    is_sent = Q(attempts__gt=0)
    # Given up because nobody wanted it any more: says nothing of the broker.
    given_up = Q(status=statuses.FAILED, cancel_requested_at__isnull=False)
    filled = Order.objects.filter(chain=OuterRef("pk"), filled_qty__gt=0)
    rows = Order.objects.filter(account=span.account, leg_of=None, **span.of("created_at"))
    found: Iterable[Any] = (
        rows.order_by()
        .annotate(has_filled=Exists(filled))
        .values("strategy__name", "status")
        .annotate(
            orders=Count("pk"),
            sent=Count("pk", filter=is_sent),
            errors=Count(
                "pk",
                filter=is_sent & Q(status__in=sorted(statuses.UNSUCCESSFUL)) & ~given_up,
            ),
            acknowledged=Count(
                "pk",
                filter=is_sent & Q(acknowledged_at__isnull=False) & ~Q(status=statuses.REJECTED),
            ),
            first=Count("pk", filter=Q(replaces=None)),
            signals=Count("pk", filter=is_signal),
            executed=Count("pk", filter=is_signal & Q(has_filled=True)),
        )
    )
    return list(found)


def denials(accounts: Sequence[int], start: datetime, end: datetime) -> dict[tuple[int, str], int]:
    """Orders that our checks denied, by account and code. One denied by two counts for both."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT o.account_id, v.code, count(DISTINCT o.id) FROM orders_order o "
            "CROSS JOIN LATERAL (SELECT each ->> 'code' AS code "
            "FROM jsonb_array_elements(o.violations) each) v "
            "WHERE o.account_id = ANY(%s) AND o.created_at >= %s AND o.created_at < %s "
            "AND o.status = %s GROUP BY 1, 2 ORDER BY 1, 2",
            [list(accounts), start, end, statuses.DENIED],
        )
        return {(account, code or "unknown"): count for account, code, count in cursor.fetchall()}


def refused_for_funds(span: Span) -> int:
    rows = Order.objects.filter(
        account=span.account, status=statuses.REJECTED, **span.of("created_at")
    )
    told = rows.order_by("-created_at").values_list("rejection", flat=True)[:_REFUSALS_READ]
    return sum(is_for_funds(str((words or {}).get("message") or "")) for words in told)


def submission(account: BrokerAccount, starts: Sequence[datetime], end: datetime) -> list[Any]:
    """For each start up to the end: how many orders were acknowledged, and the milliseconds that
    95 % of them kept to. One query."""
    took = "extract(epoch FROM acknowledged_at - judged_at) * 1000"
    columns = ", ".join(
        "count(*) FILTER (WHERE created_at >= %s), "
        f"percentile_disc(0.95) WITHIN GROUP (ORDER BY {took}) FILTER (WHERE created_at >= %s)"
        for _ in starts
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM orders_order WHERE account_id = %s AND created_at >= %s "  # noqa: S608 our own words
            "AND created_at < %s AND acknowledged_at IS NOT NULL AND judged_at IS NOT NULL "
            "AND attempts > 0 AND leg_of_id IS NULL AND status <> %s",
            [
                *(start for each in starts for start in (each, each)),
                *(account.pk, min(starts), end, statuses.REJECTED),
            ],
        )
        row = cursor.fetchone()
    return [(row[at], row[at + 1]) for at in range(0, 2 * len(starts), 2)]


def fills(span: Span) -> dict[str, Any]:
    """Our own fills: how many, and dollars bought and sold."""
    cost = Coalesce(Sum(F("qty") * F("price")), _ZERO, output_field=DecimalField())
    found = Fill.objects.filter(account=span.account, **span.of("recorded_at"))
    rows: dict[str, Any] = {
        row["order__side"]: row
        for row in found.order_by().values("order__side").annotate(fills=Count("pk"), cost=cost)
    }
    bought, sold = (rows[side]["cost"] if side in rows else _ZERO for side in ("buy", "sell"))
    return {
        "count": sum(row["fills"] for row in rows.values()),
        "bought": bought,
        "sold": sold,
        "turnover": bought + sold,
    }


def realized_profit(span: Span) -> Decimal:
    rows = LedgerEntry.objects.filter(account=span.account, **span.of("recorded_at"))
    return rows.aggregate(sum=Coalesce(Sum("realized_profit"), _ZERO))["sum"] or _ZERO


def cash(span: Span) -> list[dict[str, Any]]:
    """Dollars that came or went otherwise than by our own fills, by kind."""
    rows = CashEntry.objects.filter(account=span.account, **span.of("recorded_at"))
    by_kind: Any = rows.order_by("kind").values("kind")
    return list(by_kind.annotate(count=Count("pk"), amount=Sum("amount")))


def activities(span: Span) -> list[dict[str, Any]]:
    """What the broker's activities told that no order of ours made, by their type."""
    rows = BrokerActivity.objects.filter(account=span.account, **span.of("recorded_at"))
    by_type: Any = rows.order_by("activity_type").values("activity_type")
    return list(by_type.annotate(count=Count("pk"), amount=Sum("amount")))


def comparisons(span: Span) -> dict[str, Any]:
    """The comparisons of the span; positions, seconds and agreement of the complete ones. Dry
    runs, which people ask for to look, count for nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_COMPARISONS, [span.account.pk, span.start, span.end])
        names = [column.name for column in cursor.description]
        return dict(zip(names, cursor.fetchone(), strict=True))


def longest_gap(span: Span) -> Decimal | None:
    """Seconds between two complete comparisons, or between the span's ends and the next one;
    None for a span of no length."""
    if span.start >= span.end:
        return None
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(extract(epoch FROM until - at)) FROM ("
            "SELECT at, lead(at) OVER (ORDER BY at) AS until FROM ("
            "SELECT started_at AS at FROM reconciliation_reconciliationreport "
            "WHERE account_id = %s AND started_at >= %s AND started_at < %s "
            "AND complete AND NOT dry_run "
            "UNION ALL SELECT %s UNION ALL SELECT %s) moments) gaps",
            [span.account.pk, span.start, span.end, span.start, span.end],
        )
        (seconds,) = cursor.fetchone()
    return Decimal(seconds).quantize(Decimal("0.001"))


def readings(span: Span) -> dict[str, int]:
    """Complete readings of the broker, and the positions of them all."""
    rows = Snapshot.objects.filter(account=span.account, complete=True, **span.of("asked_at"))
    found: Mapping[str, Any] = rows.aggregate(count=Count("pk"), positions=Sum("positions"))
    return {"count": found["count"], "positions": found["positions"] or 0}


def largest_sector(account: BrokerAccount) -> tuple[str, Decimal] | None:
    """The sector with the most dollars, long and short, and its share of equity in per cent, as
    the broker last told; None where that is not known."""
    if not account.equity or account.equity <= 0:
        return None
    rows = Position.objects.filter(account=account).exclude(broker_qty=0).order_by()
    held = list(rows.values_list("symbol", "broker_market_value", "broker_qty", "broker_price"))
    sectors = sector_of([symbol for symbol, *_ in held])
    dollars: dict[str, Decimal] = {}
    for symbol, value, qty, price in held:
        worth = abs(value if value is not None else qty * (price or _ZERO))
        dollars[sectors[symbol]] = dollars.get(sectors[symbol], _ZERO) + worth
    if not dollars:
        return "", _ZERO
    sector = max(dollars, key=lambda name: (dollars[name], name))
    return sector, 100 * dollars[sector] / account.equity
