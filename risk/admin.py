"""Risk limits in the console: every change is a new version, made by `risk.limits.change`."""

from collections import defaultdict
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console import text
from ordinis.console.limits_decide import decide_limits
from ordinis.console.limits_form import Owner, change_limits, denials, in_words
from ordinis.console.limits_text import GROUPS, differences, label, window
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import badge, moment
from risk.limits import Assessment, holding, may_decide, reassess
from risk.models import RiskLimits

Status = RiskLimits.Status


class OwnerFilter(admin.SimpleListFilter):
    title = "limits of"
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        strategies = Strategy.objects.values_list("pk", "name")
        return [("account", "the account"), *((str(pk), name) for pk, name in strategies)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        if value == "account":
            return queryset.filter(strategy=None)
        return queryset.filter(strategy_id=int(value)) if value.isdecimal() else queryset


class StatusFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(words)) for value, words in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(status=value) if value in Status.values else queryset


@admin.register(RiskLimits)
class RiskLimitsAdmin(ReadOnlyAdmin[RiskLimits]):
    list_display = (
        "version_of",
        "phase",
        "changes",
        "reason",
        "held",
        "made_by",
        "made",
        "decided",
    )
    list_filter = (OwnerFilter, StatusFilter)
    change_list_template = "console/limits.html"
    page_template = "console/limits_version.html"
    sortable_by = ()
    ordering = ("-created_at", "-pk")
    empty = (
        "Nobody has changed a limit yet: the defaults hold. Each change appears here as a version."
    )

    def get_urls(self) -> list[URLPattern]:
        decide = path(
            "<int:key>/decide/",
            self.admin_site.admin_view(self.decide_view),
            name="risk_risklimits_decide",
        )
        return [decide, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_risklimits")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskLimits]:
        return super().get_queryset(request).select_related("account", "strategy", "decided_by")

    def decide_view(self, request: HttpRequest, key: int) -> HttpResponse:
        return decide_limits(self, request, key)

    @admin.display(description="limits of")
    def version_of(self, row: RiskLimits) -> str:
        return str(row)

    @admin.display(description="state")
    def phase(self, row: RiskLimits) -> SafeString:
        waits = row.status == Status.PROPOSED
        return badge(row.phase(timezone.now()), "amber" if waits else "")

    @admin.display(description="what changed")
    def changes(self, row: RiskLimits) -> SafeString:
        return format_html_join(
            "", '<span class="change">{}: {} → <b>{}</b></span>', differences(row)
        ) or format_html("{}", "Nothing")

    @admin.display(description="holds")
    def held(self, row: RiskLimits) -> str:
        return capfirst(window(row, timezone.now()))

    @admin.display(description="made by")
    def made_by(self, row: RiskLimits) -> str:
        return row.actor

    @admin.display(description="made")
    def made(self, row: RiskLimits) -> SafeString:
        return moment(row.created_at)

    @admin.display(description="decided by")
    def decided(self, row: RiskLimits) -> str:
        return text.NONE if row.decided_by is None else row.decided_by.get_username()

    def page(self, request: HttpRequest, row: RiskLimits) -> dict[str, Any]:
        now = timezone.now()
        waits = row.status == Status.PROPOSED
        judged = reassess(row) if waits else None
        return {
            "values": [
                (*each, *_effect(key, judged))
                for key, each in zip(row.changed, differences(row), strict=True)
            ],
            "phase": row.phase(now),
            "window": window(row, now),
            "waits": waits,
            "may_decide": waits and may_decide(row, person(request)),
            **(denials(judged) if judged else {}),
        }

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {**_in_force(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        return change_limits(self, request)


def _effect(key: str, judged: Assessment | None) -> tuple[tuple[str, str] | None, bool]:
    """What holds now and what would, and whether that loosens the limit."""
    if judged is None:
        return None, False
    sides = in_words(key, judged.before), in_words(key, judged.after)
    return sides, key in judged.loosened


def _in_force() -> dict[str, Any]:
    """Every limit that holds: a column for each account, and for each strategy with values of its
    own."""
    rows: dict[int, list[RiskLimits]] = defaultdict(list)
    for row in holding():
        rows[row.account_id].append(row)
    strategies = list(Strategy.objects.select_related("account"))
    having = {row.strategy_id for each in rows.values() for row in each}
    owners = [
        *(Owner(account) for account in BrokerAccount.objects.all()),
        *(Owner(row.account, row) for row in strategies if row.pk in having),
    ]
    limits = [owner.limits(rows[owner.account.pk])[1] for owner in owners]
    return {
        "owners": owners,
        "others": [Owner(row.account, row) for row in strategies if row.pk not in having],
        "groups": [
            (words, [(label(key), [in_words(key, each) for each in limits]) for key in keys])
            for words, keys in GROUPS
        ],
    }
