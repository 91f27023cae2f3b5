"""Breaks, corrections and reports in the console. Parses, calls one function, answers: who may
decide and what is applied is `reconciliation.corrections`' to say. No GET changes anything.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.console import text
from ordinis.console.decide import decide
from ordinis.console.evidence import action, evidence
from ordinis.console.filters import EndedFilter, WaitingFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import (
    age,
    badge,
    difference,
    difference_count,
    moment,
    report_result,
    severity,
)
from reconciliation import corrections
from reconciliation.models import Break, Correction, ReconciliationReport
from reconciliation.run import Busy, reconcile
from risk import figures


def _address(row: Break | Correction | ReconciliationReport, page: str = "change") -> str:
    return reverse(f"admin:reconciliation_{row._meta.model_name}_{page}", args=(row.pk,))


@admin.register(Break)
class BreakAdmin(ReadOnlyAdmin[Break]):
    list_display = (
        "symbol",
        "weight",
        "kind_words",
        "ours",
        "brokers",
        "differing",
        "worth",
        "state",
        "since",
        "last",
        "times_seen",
    )
    list_filter = (EndedFilter, "kind")
    search_fields = ("symbol",)
    page_template = "console/break.html"
    empty = (
        "Nothing differs. A difference between our book and the broker appears here when two "
        "looks in a row have shown it."
    )

    def get_ordering(self, request: HttpRequest) -> Any:
        return ("severity", F("value").desc(nulls_last=True), "-pk")  # critical before warning

    def get_urls(self) -> list[URLPattern]:
        propose = self.admin_site.admin_view(require_POST(self.propose))
        return [
            path("<int:key>/propose/", propose, name="reconciliation_break_propose"),
            *super().get_urls(),
        ]

    @admin.display(description="severity", ordering="severity")
    def weight(self, row: Break) -> SafeString:
        words = row.get_severity_display()
        return badge(words) if row.ended_at else severity(row.severity, words)

    @admin.display(description="kind")
    def kind_words(self, row: Break) -> str:
        return row.get_kind_display()

    @admin.display(description="our shares")
    def ours(self, row: Break) -> str:
        return text.shares(row.local_qty)

    @admin.display(description="broker's")
    def brokers(self, row: Break) -> str:
        return text.shares(row.broker_qty)

    @admin.display(description="difference")
    def differing(self, row: Break) -> SafeString:
        return difference(row.difference)

    @admin.display(description="value", ordering="value")
    def worth(self, row: Break) -> str:
        return text.money(row.value)

    @admin.display(description="state", ordering="status")
    def state(self, row: Break) -> str:
        return row.get_status_display()

    @admin.display(description="first seen", ordering="first_seen")
    def since(self, row: Break) -> SafeString:
        return moment(row.first_seen)

    @admin.display(description="last seen", ordering="last_seen")
    def last(self, row: Break) -> SafeString:
        return age(row.last_seen)

    @admin.display(description="times seen", ordering="seen_count")
    def times_seen(self, row: Break) -> int:
        return row.seen_count

    def page(self, request: HttpRequest, row: Break) -> dict[str, Any]:
        found = list(row.corrections.select_related("position", "proposed_by", "decided_by"))
        waiting = next((c for c in found if c.status == Correction.Status.PROPOSED), None)
        return {
            "corrections": found,
            "waiting": waiting,
            "may_decide": waiting is not None and corrections.may_decide(waiting, person(request)),
            "may_propose": row.ended_at is None
            and waiting is None
            and self.may(request, "propose_correction"),
        }

    def propose(self, request: HttpRequest, key: int) -> HttpResponse:
        row = self.find(request, key)
        if not self.may(request, "propose_correction"):
            raise PermissionDenied
        back = HttpResponseRedirect(_address(row))
        if row.ended_at is not None:
            messages.warning(request, "This break has ended; there is nothing to correct.")
            return back
        try:
            made = corrections.propose(row, figures.ask(row.account), by=person(request))
        except BrokerError as error:
            messages.error(request, f"The broker could not be read, nothing was proposed: {error}")
            return back
        if made is None:
            messages.warning(
                request, "Nothing was proposed: both sides agree now, or a proposal waits already."
            )
            return back
        messages.success(request, "Proposed. Somebody else decides it.")
        return HttpResponseRedirect(_address(made))


@admin.register(Correction)
class CorrectionAdmin(ReadOnlyAdmin[Correction]):
    list_display = (
        "what",
        "ours",
        "brokers",
        "state",
        "proposer",
        "proposed",
        "expires",
        "decided_by",
        "comment",
    )
    list_select_related = ("position", "proposed_by", "decided_by")
    list_filter = (WaitingFilter,)
    search_fields = ("position__symbol",)
    sortable_by = ()
    page_template = "console/correction.html"
    empty = (
        "No correction waits. One appears here when a difference was seen twice and reconcile "
        "mode is manual."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Correction]:
        rows = super().get_queryset(request)
        return rows.select_related("account", "subject", "position", "proposed_by", "decided_by")

    def get_urls(self) -> list[URLPattern]:
        decide = self.admin_site.admin_view(self.decide)
        return [
            path("<int:key>/decide/", decide, name="reconciliation_correction_decide"),
            *super().get_urls(),
        ]

    @admin.display(description="correction")
    def what(self, row: Correction) -> str:
        return f"{text.signed_shares(row.difference)} {row.position.symbol}"

    @admin.display(description="our shares")
    def ours(self, row: Correction) -> str:
        return text.shares(row.local_qty)

    @admin.display(description="broker's")
    def brokers(self, row: Correction) -> str:
        return text.shares(row.broker_qty)

    @admin.display(description="state")
    def state(self, row: Correction) -> SafeString:
        waits = row.status == Correction.Status.PROPOSED
        return badge(row.get_status_display(), "amber" if waits else "")

    @admin.display(description="proposed by")
    def proposer(self, row: Correction) -> str:
        return row.actor

    @admin.display(description="proposed")
    def proposed(self, row: Correction) -> SafeString:
        return moment(row.proposed_at)

    @admin.display(description="expires")
    def expires(self, row: Correction) -> SafeString:
        return moment(row.expires_at)

    def page(self, request: HttpRequest, row: Correction) -> dict[str, Any]:
        waits = row.status == Correction.Status.PROPOSED
        return {
            "title": f"Correction {row.pk}: {self.what(row)}",
            "evidence": evidence(row),
            "action": action(row),
            "waits": waits,
            "may_decide": waits and corrections.may_decide(row, person(request)),
        }

    def decide(self, request: HttpRequest, key: int) -> HttpResponse:
        return decide(self, request, key)


@admin.register(ReconciliationReport)
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
    )
    list_select_related = ("account",)
    list_filter = ("complete",)
    sortable_by = ()
    change_list_template = "console/reports.html"
    page_template = "console/report.html"
    empty = "A report appears here after each comparison with the broker, several a minute."

    def get_urls(self) -> list[URLPattern]:
        run = self.admin_site.admin_view(require_POST(self.run))
        return [path("run/", run, name="reconciliation_run"), *super().get_urls()]

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
        return f"{row.duration_seconds} s"

    @admin.display(description="differences")
    def differing_count(self, row: ReconciliationReport) -> int:
        return difference_count(row)

    @admin.display(description="compared")
    def compared(self, row: ReconciliationReport) -> int:
        return row.compared_count

    @admin.display(description="brought up to date")
    def updated(self, row: ReconciliationReport) -> int:
        return row.reconciled_count

    @admin.display(description="corrections waiting")
    def waiting(self, row: ReconciliationReport) -> int:
        return row.pending_approval_count

    def page(self, request: HttpRequest, row: ReconciliationReport) -> dict[str, Any]:
        return {"title": f"Comparison {row.pk}"}

    def run(self, request: HttpRequest) -> HttpResponse:
        """Compares now and shows the report."""
        if not self.may(request, "add_reconciliationreport"):
            raise PermissionDenied
        key = request.POST.get("account", "")
        account = BrokerAccount.objects.filter(pk=key).first() if key.isdecimal() else None
        try:
            if account is not None:
                return HttpResponseRedirect(_address(reconcile(account)))
            messages.error(request, "Choose the account to compare.")
        except Busy as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:reconciliation_reconciliationreport_changelist"))
