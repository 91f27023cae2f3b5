"""Reports of comparisons in the console, the broker's answers that they rest on, and comparing now.

Parses, calls one function, answers. Raw evidence leaves with secrets blotted out.
"""

import json
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST, require_safe

from ordinis.accounts.models import BrokerAccount
from ordinis.console import text
from ordinis.console.filters import AccountFilter, ChoiceFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.report_lines import lines
from ordinis.console.templatetags.breaks import seconds
from ordinis.console.templatetags.console import age, badge, moment, report_result
from ordinis.logging import mask
from reconciliation import snapshots
from reconciliation.models import ReconciliationReport, Snapshot
from reconciliation.run import Busy, reconcile

# What asked for a comparison, in words; others stand as they are.
_SOURCES = {
    "clock": "The clock",
    "second_look": "A second look",
    "start": "The start",
    "order": "An order's end",
    "console": "The console",
    "api": "The API",
    "command": "The command",
}


class CompleteFilter(ChoiceFilter):
    title = "result"
    parameter_name = "result"
    options = (
        ("all", "All"),
        ("differences", "With differences"),
        ("equal", "Without differences"),
        ("incomplete", "Incomplete"),
    )

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.chosen():
            case "differences":
                return queryset.filter(differences_count__gt=0)
            case "equal":
                return queryset.filter(complete=True, differences_count=0)
            case "incomplete":
                return queryset.filter(complete=False)
        return queryset


class SourceFilter(admin.SimpleListFilter):
    title = "asked for by"
    parameter_name = "source"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(_SOURCES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(source=self.value()) if self.value() else queryset


class ReportAdmin(ReadOnlyAdmin[ReconciliationReport]):
    list_display = (
        "started",
        "account",
        "result",
        "duration",
        "compared",
        "differing_count",
        "updated",
        "waiting",
        "asked_by",
    )
    list_select_related = ("account",)
    list_filter = (AccountFilter, CompleteFilter, SourceFilter)
    sortable_by = ()
    change_list_template = "console/reports.html"
    page_template = "console/report.html"
    empty = "A report appears here after each comparison with the broker, several a minute."

    def get_urls(self) -> list[URLPattern]:
        run = self.admin_site.admin_view(require_POST(self.run))
        return [path("run/", run, name="reconciliation_run"), *super().get_urls()]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReconciliationReport]:
        rows = super().get_queryset(request).select_related("account", "snapshot")
        return rows.defer("snapshot__evidence")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_run = self.may(request, "add_reconciliationreport")
        accounts = list(BrokerAccount.objects.all()) if may_run else []
        return super().changelist_view(request, {"accounts": accounts, **(extra_context or {})})

    @admin.display(description="started")
    def started(self, row: ReconciliationReport) -> SafeString:
        return moment(row.started_at)

    @admin.display(description="result")
    def result(self, row: ReconciliationReport) -> SafeString:
        return report_result(row)

    @admin.display(description="duration")
    def duration(self, row: ReconciliationReport) -> str:
        return seconds(row.duration_seconds)

    @admin.display(description="differences")
    def differing_count(self, row: ReconciliationReport) -> int:
        return row.differences_count

    @admin.display(description="compared")
    def compared(self, row: ReconciliationReport) -> int:
        return row.compared_count

    @admin.display(description="brought up to date")
    def updated(self, row: ReconciliationReport) -> int:
        return row.reconciled_count

    @admin.display(description="corrections waiting")
    def waiting(self, row: ReconciliationReport) -> int:
        return row.pending_approval_count

    @admin.display(description="asked for by")
    def asked_by(self, row: ReconciliationReport) -> str:
        words = _SOURCES.get(row.source, row.source.replace("_", " ").capitalize())
        dry = ", dry run" if row.dry_run else ""
        return f"{words}{f' ({row.actor})' if row.actor else ''}{dry}"

    def page(self, request: HttpRequest, row: ReconciliationReport) -> dict[str, Any]:
        return {
            "title": f"{'Dry run' if row.dry_run else 'Comparison'} {row.pk}",
            "asked_by": self.asked_by(row),
            "lines": lines(row),
            "seen_count": len(row.differences),
            "may_run": self.may(request, "add_reconciliationreport"),
        }

    def run(self, request: HttpRequest) -> HttpResponse:
        """Compares now, or shows what a comparison would do, and shows the report."""
        if not (
            self.has_view_permission(request) and self.may(request, "add_reconciliationreport")
        ):
            raise PermissionDenied
        key = request.POST.get("account", "")
        account = BrokerAccount.objects.filter(pk=int(key)).first() if key.isdecimal() else None
        try:
            if account is not None:
                report = reconcile(
                    account,
                    dry_run=request.POST.get("dry_run") == "yes",
                    source="console",
                    actor=person(request).get_username(),
                )
                return HttpResponseRedirect(
                    reverse("admin:reconciliation_reconciliationreport_change", args=(report.pk,))
                )
            messages.error(request, "Choose the account to compare.")
        except Busy as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:reconciliation_reconciliationreport_changelist"))


class SnapshotAdmin(ReadOnlyAdmin[Snapshot]):
    """What the broker said in one reading."""

    list_display = ("asked", "account", "orders", "fills", "positions", "completeness", "facts")
    list_filter = (AccountFilter,)
    sortable_by = ()
    page_template = "console/snapshot.html"
    empty = "What the broker answers is kept here with each comparison."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Snapshot]:
        # The bodies are large: read only where they are asked for.
        rows = super().get_queryset(request).select_related("account", "same_as")
        return rows.defer("evidence", "same_as__evidence")

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(require_safe(self.download))
        return [
            path("<int:key>/evidence/", download, name="reconciliation_snapshot_evidence"),
            *super().get_urls(),
        ]

    @admin.display(description="read")
    def asked(self, row: Snapshot) -> SafeString:
        return moment(row.asked_at, exact=True)

    @admin.display(description="complete")
    def completeness(self, row: Snapshot) -> SafeString:
        return badge("Complete") if row.complete else badge("Incomplete", "amber")

    @admin.display(description="facts")
    def facts(self, row: Snapshot) -> str:
        if row.same_as_id is not None:
            return "The same as before"
        return row.digest[:12] or text.NONE

    def page(self, request: HttpRequest, row: Snapshot) -> dict[str, Any]:
        kept = Snapshot.objects.filter(pk=row.same_as_id or row.pk, evidence__isnull=False)
        return {
            "title": f"The broker's answer {row.pk}",
            "is_kept": kept.exists(),
            "reports": row.reports.order_by("-pk")[:10],
            "read": age(row.asked_at),
        }

    def download(self, request: HttpRequest, key: int) -> HttpResponse:
        """The broker's own bodies as JSON."""
        row = self.find(request, key)
        found = snapshots.evidence_of(row)
        if found is None:
            raise Http404("Its raw evidence is not kept any more.")
        body = mask(json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False))
        answer = HttpResponse(body, content_type="application/json; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="ordinis-snapshot-{row.pk}.json"'
        return answer
