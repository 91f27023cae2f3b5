"""What a daily report lists one by one: breaks, corrections, changes of trading, alerts, rebuilds.

Counts are of all; lists are bounded and say how many were left out. Reads only.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db.models import Count, F, Min, Q, QuerySet, Sum

from ordinis.alerts.models import Alert
from ordinis.numbers import plain
from reconciliation.daily_counts import Span
from reconciliation.models import Break, Correction, Rebuild
from risk.models import TradingChange
from risk.states import ACTIVE

LISTED: Final = 200


def breaks(span: Span) -> dict[str, Any]:
    """Those that opened or ended in the span, or stand at its end; by kind, and the worst of them
    one by one. Ages are taken at the span's end."""
    rows = Break.objects.filter(account=span.account, first_seen__lt=span.end)
    stood = Q(ended_at=None) | Q(ended_at__gte=span.end)
    ended = Q(**span.of("ended_at"))
    rows = rows.filter(Q(first_seen__gte=span.start) | stood | ended)
    by_kind = rows.order_by("kind").values("kind")
    kinds = by_kind.annotate(
        all=Count("pk"),
        opened=Count("pk", filter=Q(first_seen__gte=span.start)),
        healed=Count("pk", filter=ended & Q(status=Break.Status.HEALED)),
        resolved=Count("pk", filter=ended & Q(status=Break.Status.RESOLVED)),
        standing=Count("pk", filter=stood),
        since=Min("first_seen", filter=stood),
        dollars=Sum("value", filter=stood),
    )
    worst = rows.select_related("assignee").order_by(
        F("ended_at").desc(nulls_first=True), "severity", F("value").desc(nulls_last=True), "pk"
    )
    found = [
        {
            **{name: row[name] for name in ("kind", "opened", "healed", "resolved", "standing")},
            "oldest_seconds": _seconds(row["since"], span.end),
            "value": _number(row["dollars"]),
        }
        for row in kinds
    ]
    total = sum(row["all"] for row in kinds)
    return {"by_kind": found, **_listed(worst, total, lambda row: _break(row, span.end))}


def _break(row: Break, end: datetime) -> dict[str, Any]:
    return {
        "id": row.pk,
        "kind": row.kind,
        "subject": row.subject,
        "symbol": row.symbol,
        "severity": row.severity,
        "status": row.status,
        "value": _number(row.value),
        "first_seen": row.first_seen.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "age_seconds": _seconds(row.first_seen, min(row.ended_at or end, end)),
        "seen_count": row.seen_count,
        "assignee": row.assignee.get_username() if row.assignee else "",
        "explanation": row.explanation,
    }


def corrections(span: Span) -> dict[str, Any]:
    """Proposed or decided in the span, or waiting at its end: who, what and why."""
    rows = Correction.objects.filter(account=span.account, proposed_at__lt=span.end).filter(
        Q(proposed_at__gte=span.start)
        | Q(**span.of("decided_at"))
        | Q(status=Correction.Status.PROPOSED)
    )
    related = ("position", "subject", "proposed_by", "decided_by")
    by_people = Q(**span.of("decided_at"), decided_by__isnull=False)
    counted = rows.aggregate(
        total=Count("pk"),
        by_people=Count("pk", filter=by_people),
        automatic=Count("pk", filter=Q(**span.of("decided_at"), automatic=True)),
    )
    newest = rows.select_related(*related).order_by("-proposed_at", "-pk")
    return {
        "by_people": counted["by_people"],
        "automatic": counted["automatic"],
        **_listed(newest, counted["total"], _correction),
    }


def _correction(row: Correction) -> dict[str, Any]:
    return {
        "id": row.pk,
        "kind": row.kind,
        "symbol": row.position.symbol if row.position else row.subject.symbol,
        "local": plain(row.local),
        "broker": plain(row.broker),
        "value": _number(row.value),
        "status": row.status,
        "proposed_by": row.actor,
        "proposed_at": row.proposed_at.isoformat(),
        "reason": row.reason,
        "explanation": row.explanation,
        "decided_by": row.decided_by.get_username() if row.decided_by else "",
        "decided_at": row.decided_at and row.decided_at.isoformat(),
        "comment": row.comment,
        "automatic": row.automatic,
        "self_decided": row.self_decided,
    }


def trading(span: Span) -> dict[str, Any]:
    """Changes of the trading state and of the breaker; how often a person halted or reduced."""
    rows = TradingChange.objects.filter(account=span.account, **span.of("at"))
    by_person = Q(kind=TradingChange.Kind.PERSON) & ~Q(to_state=ACTIVE)
    overridden = Q(kind=TradingChange.Kind.OVERRIDE)
    counted = rows.aggregate(total=Count("pk"), halts=Count("pk", filter=by_person | overridden))
    return {
        "halts": counted["halts"],
        **_listed(
            rows.order_by("-at", "-pk"),
            counted["total"],
            lambda row: {
                "at": row.at.isoformat(),
                "kind": row.kind,
                "from": row.from_state,
                "to": row.to_state,
                "actor": row.actor,
                "reason": row.reason,
            },
        ),
    }


def alerts(span: Span) -> dict[str, Any]:
    """Raised in the span, or standing at its end."""
    rows = Alert.objects.filter(account=span.account, first_seen__lt=span.end)
    stood = Q(ended_at=None) | Q(ended_at__gte=span.end)
    rows = rows.filter(Q(first_seen__gte=span.start) | stood)
    counted = rows.aggregate(
        total=Count("pk"),
        raised=Count("pk", filter=Q(first_seen__gte=span.start)),
        standing=Count("pk", filter=stood),
    )
    return {
        "raised": counted["raised"],
        "standing": counted["standing"],
        **_listed(
            rows.order_by("severity", "-first_seen", "pk"),
            counted["total"],
            lambda row: {
                "code": row.code,
                "subject": row.subject,
                "severity": row.severity,
                "message": row.message,
                "first_seen": row.first_seen.isoformat(),
                "ended_at": row.ended_at and row.ended_at.isoformat(),
                "seen_count": row.seen_count,
            },
        ),
    }


def rebuilds(span: Span) -> list[dict[str, Any]]:
    rows = Rebuild.objects.filter(account=span.account, **span.of("at"))
    return [
        {
            "at": row.at.isoformat(),
            "actor": row.actor,
            "reason": row.reason,
            "changes": len(row.changes),
            "cash_before": _number(row.cash_before),
            "cash_after": _number(row.cash_after),
        }
        for row in rows[:LISTED]
    ]


def _listed(rows: QuerySet[Any], total: int, entry: Any) -> dict[str, Any]:
    listed: Sequence[Any] = [entry(row) for row in rows[:LISTED]]
    return {"listed": listed, "total": total, "left_out": total - len(listed)}


def _number(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _seconds(since: datetime | None, until: datetime) -> int | None:
    return None if since is None else max(int((until - since).total_seconds()), 0)
