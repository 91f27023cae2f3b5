"""The list of breaks as a work queue: one line per problem, what waits longest for a person first.

Shows and filters; what people do with the lines is in `ordinis.console.breaks_work`.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ordinis.accounts.models import BrokerAccount
from ordinis.console import breaks_text, text
from ordinis.console.filters import ChoiceFilter, EndedFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.breaks import differing
from ordinis.console.templatetags.console import age, badge, moment, severity
from reconciliation.models import Break, BreakEvent, Kind
from reconciliation.words import explained

PEOPLE_SHOWN = 200
_BUSY = {Break.Status.ESCALATED: "red", Break.Status.CORRECTING: "amber"}


class KindFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind.value, breaks_text.KIND_WORDS[kind.value]) for kind in Kind]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(kind=self.value()) if self.value() in Kind.values else queryset


class AssigneeFilter(ChoiceFilter):
    title = "assigned to"
    parameter_name = "assigned"
    options = (("all", "Anybody or nobody"), ("me", "Me"), ("nobody", "Nobody"))

    def __init__(self, request: HttpRequest, *given: Any) -> None:
        super().__init__(request, *given)
        self._me = person(request).pk

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.chosen() == "all":
            return queryset
        return queryset.filter(assignee=self._me if self.chosen() == "me" else None)


class AnyAccountFilter(admin.SimpleListFilter):
    """All accounts, or one."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in BrokerAccount.objects.values_list("pk", "name")]

    def has_output(self) -> bool:
        return len(self.lookup_choices) > 1

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(account_id=int(value)) if value.isdecimal() else queryset


class BreakList(ReadOnlyAdmin[Break]):
    list_display: Any = (
        "what",
        "weight",
        "kind_words",
        "ours",
        "brokers",
        "differing",
        "worth",
        "state",
        "since",
        "times_seen",
        "holder",
        "comments",
    )
    list_display_links = ("what",)
    list_filter = (AnyAccountFilter, EndedFilter, KindFilter, "severity", AssigneeFilter)
    list_select_related = ("account", "order", "assignee")
    search_fields = ("symbol", "broker_order_id", "order__client_order_id")
    list_per_page = 100
    change_list_template = "console/breaks.html"
    empty = (
        "Nothing differs. A difference between our book and the broker appears here when two "
        "looks in a row have shown it."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Break]:
        said = (
            BreakEvent.objects.filter(subject=OuterRef("pk"), what=BreakEvent.What.COMMENTED)
            .order_by()
            .values("subject")
            .annotate(count=Count("pk"))
            .values("count")
        )
        rows = super().get_queryset(request).select_related("account", "order", "assignee")
        return rows.annotate(said=Coalesce(Subquery(said), 0))

    def get_list_display(self, request: HttpRequest) -> Any:
        return (
            ("chosen", *self.list_display)
            if self.may(request, "work_on_break")
            else (self.list_display)
        )

    def get_ordering(self, request: HttpRequest) -> Any:
        return ("severity", F("value").desc(nulls_last=True), "-pk")  # critical before warning

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        may_work = self.may(request, "work_on_break")
        context = {"may_work": may_work, "people": people() if may_work else []}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description=SafeString('<span class="unseen">Choose</span>'))
    def chosen(self, row: Break) -> SafeString:
        if row.ended_at is not None:
            return format_html("{}", text.NONE)
        return format_html(
            '<input type="checkbox" name="break" value="{}" form="work" aria-label="Choose {}">',
            str(row.pk),
            f"{breaks_text.subject(row)}, {breaks_text.KIND_WORDS[row.kind].lower()}",
        )

    @admin.display(description="break", ordering="symbol")
    def what(self, row: Break) -> str:
        return breaks_text.subject(row)

    @admin.display(description="severity", ordering="severity")
    def weight(self, row: Break) -> SafeString:
        words = row.get_severity_display()
        return badge(words) if row.ended_at else severity(row.severity, words)

    @admin.display(description="kind, and what explains it", ordering="kind")
    def kind_words(self, row: Break) -> SafeString:
        words, why = breaks_text.KIND_WORDS[row.kind], explained(row.explanation)
        if not why:
            return format_html("{}", words)
        return format_html('{} <span class="why">{}</span>', words, why)

    @admin.display(description="ours")
    def ours(self, row: Break) -> str:
        return breaks_text.ours(row)

    @admin.display(description="broker's")
    def brokers(self, row: Break) -> str:
        return breaks_text.brokers(row)

    @admin.display(description="difference")
    def differing(self, row: Break) -> SafeString:
        return differing(row)

    @admin.display(description="value", ordering="value")
    def worth(self, row: Break) -> str:
        return text.money(row.value)

    @admin.display(description="state", ordering="status")
    def state(self, row: Break) -> SafeString:
        words = "To decide" if row.status == Break.Status.CORRECTING else row.get_status_display()
        return badge(words, _BUSY.get(Break.Status(row.status), ""))

    @admin.display(description="age", ordering="first_seen")
    def since(self, row: Break) -> SafeString:
        return moment(row.first_seen) if row.ended_at else age(row.first_seen, "")

    @admin.display(description="seen", ordering="seen_count")
    def times_seen(self, row: Break) -> int:
        return row.seen_count

    @admin.display(description="has it", ordering="assignee__username")
    def holder(self, row: Break) -> str:
        return row.assignee.get_username() if row.assignee else text.NONE

    @admin.display(description="comments")
    def comments(self, row: Break) -> int:
        return row.said  # type: ignore[attr-defined,no-any-return]


def people() -> list[User]:
    """Who may be given a break: active, and able to see it."""
    found = User.objects.with_perm("reconciliation.view_break").order_by("username")
    return list(found.only("pk", "username")[:PEOPLE_SHOWN])
