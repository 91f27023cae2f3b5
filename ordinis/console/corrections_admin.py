"""Corrections in the console: the list, and the page that a decision is made on."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from ordinis.console import breaks_text, effects, text
from ordinis.console.decide import decide
from ordinis.console.evidence import action, evidence
from ordinis.console.filters import WaitingFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.breaks import correction_status, differing
from ordinis.console.templatetags.console import moment
from reconciliation import corrections
from reconciliation.models import Correction


class CorrectionAdmin(ReadOnlyAdmin[Correction]):
    list_display = (
        "what",
        "does",
        "ours",
        "brokers",
        "differing",
        "worth",
        "state",
        "proposer",
        "proposed",
        "expires",
        "decider",
        "comment",
    )
    list_filter = (WaitingFilter, "kind")
    search_fields = ("position__symbol",)
    sortable_by = ()
    page_template = "console/correction.html"
    empty = (
        "No correction waits. One appears here when a difference was seen twice and reconcile "
        "mode is manual, or when somebody proposes one."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Correction]:
        rows = super().get_queryset(request)
        return rows.select_related(
            *("account", "subject__account", "subject__order", "position", "snapshot", "order"),
            *("proposed_by", "decided_by", "cash_entry"),
        ).defer("snapshot__evidence")

    def get_urls(self) -> list[URLPattern]:
        decide = self.admin_site.admin_view(self.decide)
        return [
            path("<int:key>/decide/", decide, name="reconciliation_correction_decide"),
            *super().get_urls(),
        ]

    @admin.display(description="correction")
    def what(self, row: Correction) -> str:
        return breaks_text.what(row)

    @admin.display(description="what it does")
    def does(self, row: Correction) -> str:
        return row.get_kind_display()

    @admin.display(description="ours")
    def ours(self, row: Correction) -> str:
        return breaks_text.ours(row)

    @admin.display(description="broker's")
    def brokers(self, row: Correction) -> str:
        return breaks_text.brokers(row)

    @admin.display(description="difference")
    def differing(self, row: Correction) -> SafeString:
        return differing(row)

    @admin.display(description="value")
    def worth(self, row: Correction) -> str:
        return text.money(row.value)

    @admin.display(description="state")
    def state(self, row: Correction) -> SafeString:
        return correction_status(row)

    @admin.display(description="proposed by")
    def proposer(self, row: Correction) -> str:
        return row.actor

    @admin.display(description="proposed")
    def proposed(self, row: Correction) -> SafeString:
        return moment(row.proposed_at)

    @admin.display(description="expires")
    def expires(self, row: Correction) -> SafeString:
        return moment(row.expires_at)

    @admin.display(description="decided by")
    def decider(self, row: Correction) -> str:
        if row.automatic:
            return "Ordinis, within its limits"
        name = row.decided_by.get_username() if row.decided_by else text.NONE
        return f"{name} (self-decided)" if row.self_decided else name

    def page(self, request: HttpRequest, row: Correction) -> dict[str, Any]:
        waits = row.status == Correction.Status.PROPOSED
        trade = row.kind == Correction.Kind.TRADE
        return {
            "title": f"Correction {row.pk}: {self.what(row)}",
            "what": self.what(row),
            "decider": self.decider(row),
            "evidence": evidence(row),
            "changes": effects.changes(row) if waits else [],
            "effects": effects.words(row) if waits else [],
            "limits": effects.limits_then(row),
            "action": action(row),
            "trade_words": breaks_text.order_words(row) if trade else "",
            "waits": waits,
            "may_decide": waits and corrections.may_decide(row, person(request)),
        }

    def decide(self, request: HttpRequest, key: int) -> HttpResponse:
        return decide(self, request, key)
