"""Reconciliation over HTTP: parses, calls one function, answers. Holds no rule."""

from typing import Annotated, Any, Literal

from django.db.models import Max, Q, QuerySet
from ninja import Query, Router, Schema

from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.http import (
    Body,
    Problem,
    ProblemOut,
    decode_cursor,
    encode_cursor,
    moment,
    number_of,
)
from ordinis.numbers import dollars, plain
from reconciliation.models import Break, ReconciliationReport
from reconciliation.run import Busy, reconcile
from reconciliation.words import explained

router = Router(tags=["reconciliation"])


class RunIn(Body):
    dry_run: bool = False


class DriftOut(Schema):
    kind: str
    symbol: str
    local: str
    broker: str
    difference: str


class DifferenceOut(Schema):
    """One difference of any kind, with what explains it, in words; `local` and `broker` are in the
    unit of its kind (statuses for order_status)."""

    kind: str
    subject: str
    symbol: str
    local: str
    broker: str
    value: str | None
    explanation: str


class ActionOut(Schema):
    """What was done about a difference; in a dry run, what would be."""

    subject: str
    symbol: str
    kind: str
    action: str
    words: str


class ReportOut(Schema):
    """What one comparison found. `complete` false: the broker could not be read, and nothing
    was concluded."""

    id: int
    account: str
    mode: str
    dry_run: bool
    complete: bool
    reason: str
    started_at: str
    duration_seconds: str
    zombies: list[str]
    orphans: list[str]
    quantity_drifts: list[DriftOut]
    order_breaks: list[dict[str, Any]]
    differences: list[DifferenceOut]
    differences_count: int
    actions: list[ActionOut]
    compared_count: int
    reconciled_count: int
    pending_approval_count: int
    critical_issues: list[str]


class ReportPage(Schema):
    items: list[ReportOut]
    next: str | None


class BreakOut(Schema):
    """A confirmed difference; shares are signed, `difference` is the broker's less ours."""

    id: int
    kind: str
    subject: str
    symbol: str
    order: str | None
    broker_order_id: str | None
    local: str
    broker: str
    local_status: str | None
    broker_status: str | None
    difference: str
    value: str | None
    severity: str
    explanation: str
    assignee: str | None
    first_seen: str
    last_seen: str
    seen_count: int
    status: str
    correction: int | None


class BreakPage(Schema):
    items: list[BreakOut]
    next: str | None


@router.post(
    "/run",
    auth=Scope("operate"),
    response={200: ReportOut, 503: ProblemOut},
    summary="Compare now",
)
def run(request: TokenRequest, body: RunIn | None = None) -> dict[str, Any]:
    dry_run = body.dry_run if body else False
    try:
        strategy = strategy_of(request)
        made = reconcile(strategy.account, dry_run=dry_run, source="api", actor=strategy.name)
        return report_out(made)
    except Busy as error:
        raise Problem(
            503, "reconciliation_busy", str(error), headers={"Retry-After": "30"}
        ) from error


@router.get("/reports", auth=Scope("read"), response=ReportPage, summary="Reports, newest first")
def list_reports(
    request: TokenRequest,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    rows = _reports(request)
    if cursor:
        started_at, key = decode_cursor(cursor)
        rows = rows.filter(
            Q(started_at__lt=started_at) | Q(started_at=started_at, pk__lt=number_of(key))
        )
    page = list(rows.order_by("-started_at", "-pk")[: limit + 1])
    more = len(page) > limit
    page = page[:limit]
    return {
        "items": [report_out(row) for row in page],
        "next": encode_cursor(page[-1].started_at, page[-1].pk) if more else None,
    }


@router.get(
    "/reports/{int:report_id}",
    auth=Scope("read"),
    response={200: ReportOut, 404: ProblemOut},
    summary="One report",
)
def get_report(request: TokenRequest, report_id: int) -> dict[str, Any]:
    row = _reports(request).filter(pk=report_id).first()
    if row is None:
        raise Problem(404, "report_not_found", "This account has no such report.")
    return report_out(row)


@router.get("/breaks", auth=Scope("read"), response=BreakPage, summary="Breaks, latest first")
def list_breaks(
    request: TokenRequest,
    status: Literal["open", "all"] = "open",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: str | None = None,
) -> dict[str, Any]:
    rows = Break.objects.select_related("assignee").filter(
        account_id=strategy_of(request).account_id
    )
    if status == "open":
        rows = rows.filter(ended_at=None)
    if cursor:
        first_seen, key = decode_cursor(cursor)
        rows = rows.filter(
            Q(first_seen__lt=first_seen) | Q(first_seen=first_seen, pk__lt=number_of(key))
        )
    rows = rows.annotate(correction_id=Max("corrections__pk"))
    page = list(rows.order_by("-first_seen", "-pk")[: limit + 1])
    more = len(page) > limit
    page = page[:limit]
    return {
        "items": [_break_out(row) for row in page],
        "next": encode_cursor(page[-1].first_seen, page[-1].pk) if more else None,
    }


def report_out(row: ReconciliationReport) -> dict[str, Any]:
    """The report of API.md."""
    return {
        "id": row.pk,
        "account": row.account.name,
        "mode": row.mode,
        "dry_run": row.dry_run,
        "complete": row.complete,
        "reason": row.reason,
        "started_at": moment(row.started_at),
        "duration_seconds": plain(row.duration_seconds),
        "zombies": row.zombies,
        "orphans": row.orphans,
        "quantity_drifts": row.quantity_drifts,
        "order_breaks": row.order_breaks,
        "differences": row.differences,
        "differences_count": row.differences_count,
        "actions": row.actions,
        "compared_count": row.compared_count,
        "reconciled_count": row.reconciled_count,
        "pending_approval_count": row.pending_approval_count,
        "critical_issues": row.critical_issues,
    }


def _break_out(row: Break) -> dict[str, Any]:
    return {
        "id": row.pk,
        "kind": row.kind,
        "subject": row.subject,
        "symbol": row.symbol,
        "order": row.order_id and str(row.order_id),
        "broker_order_id": row.broker_order_id or None,
        "local": plain(row.local),
        "broker": plain(row.broker),
        "local_status": row.local_status or None,
        "broker_status": row.broker_status or None,
        "difference": plain(row.difference),
        "value": dollars(row.value),
        "severity": row.severity,
        "explanation": explained(row.explanation),
        "assignee": row.assignee.get_username() if row.assignee else None,
        "first_seen": moment(row.first_seen),
        "last_seen": moment(row.last_seen),
        "seen_count": row.seen_count,
        "status": row.status,
        "correction": row.correction_id,  # type: ignore[attr-defined]
    }


def _reports(request: TokenRequest) -> QuerySet[ReconciliationReport]:
    return ReconciliationReport.objects.select_related("account").filter(
        account_id=strategy_of(request).account_id
    )
