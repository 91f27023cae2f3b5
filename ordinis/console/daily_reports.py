"""Daily reports in the console: the list, a page that prints, its CSV, and the day so far. Reads
only; what they say is `reconciliation.daily`'s.
"""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_safe

from ordinis.accounts.models import BrokerAccount
from ordinis.console.daily_text import as_csv
from ordinis.console.filters import AccountFilter
from ordinis.console.pages import ReadOnlyAdmin
from ordinis.console.templatetags.console import badge, moment
from reconciliation.daily import NoReport, figures_of
from reconciliation.daily_tables import tables
from reconciliation.models import DailyReport
from risk.exchange import CalendarUnknown
from risk.figures import database_now


@admin.register(DailyReport)
class DailyReportAdmin(ReadOnlyAdmin[DailyReport]):
    list_display = ("date", "account", "received", "standing", "missed", "made")
    list_select_related = ("account",)
    list_filter = (AccountFilter,)
    sortable_by = ()
    change_list_template = "console/daily_reports.html"
    page_template = "console/daily_report.html"
    empty = (
        "A report appears here a quarter of an hour after each close of the exchange. The day so "
        "far can be looked at before."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[DailyReport]:
        """Without the figures, of which a list shows three."""
        rows = super().get_queryset(request).defer("figures")
        return rows.annotate(
            orders_received=F("figures__orders__total__received"),
            breaks_by_kind=F("figures__breaks__by_kind"),
            measures=F("figures__scorecard__day__measures"),
        )

    def get_urls(self) -> list[URLPattern]:
        def guarded(view: Any) -> Any:
            return self.admin_site.admin_view(require_safe(view))

        return [
            path("<int:key>/csv/", guarded(self.csv), name="reconciliation_dailyreport_csv"),
            path(
                "so-far/<int:account_id>/",
                guarded(self.so_far),
                name="reconciliation_dailyreport_so_far",
            ),
            path(
                "so-far/<int:account_id>/csv/",
                guarded(self.so_far_csv),
                name="reconciliation_dailyreport_so_far_csv",
            ),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        accounts = BrokerAccount.served().exclude(opened_at=None)
        return super().changelist_view(request, {"accounts": accounts, **(extra_context or {})})

    @admin.display(description="day")
    def date(self, row: DailyReport) -> str:
        return f"{row.day:%Y-%m-%d}"

    @admin.display(description="orders")
    def received(self, row: Any) -> int:
        return int(row.orders_received)

    @admin.display(description="breaks open at the end")
    def standing(self, row: Any) -> SafeString | int:
        count = sum(kind["standing"] for kind in row.breaks_by_kind)
        return badge(str(count), "amber") if count else 0

    @admin.display(description="targets missed")
    def missed(self, row: Any) -> str:
        met = [measure["met"] for measure in row.measures if measure["met"] is not None]
        return f"{met.count(False)} of {len(met)} measured"

    @admin.display(description="made")
    def made(self, row: DailyReport) -> SafeString:
        return moment(row.made_at)

    def page(self, request: HttpRequest, row: DailyReport) -> dict[str, Any]:
        return {
            "title": f"Report of {row.day}: {row.account}",
            "tables": tables(row.figures),
            "csv": reverse("admin:reconciliation_dailyreport_csv", args=(row.pk,)),
        }

    def csv(self, request: HttpRequest, key: int) -> HttpResponse:
        row = self.find(request, key)
        return _file(row.figures, f"{row.account.name}-{row.day}")

    def so_far(self, request: HttpRequest, account_id: int) -> HttpResponse:
        """The day that runs, counted now. Stores nothing."""
        account = self._account(request, account_id)
        try:
            figures = figures_of(account, None, database_now())
        except (NoReport, CalendarUnknown) as error:
            return self._without(request, account, error)
        title = f"{figures['day']} so far: {account}"
        csv = reverse("admin:reconciliation_dailyreport_so_far_csv", args=(account.pk,))
        return self.answer(
            request, self.page_template, title, tables=tables(figures), so_far=True, csv=csv
        )

    def so_far_csv(self, request: HttpRequest, account_id: int) -> HttpResponse:
        account = self._account(request, account_id)
        try:
            figures = figures_of(account, None, database_now())
        except (NoReport, CalendarUnknown) as error:
            return self._without(request, account, error)
        return _file(figures, f"{account.name}-{figures['day']}-so-far")

    def _account(self, request: HttpRequest, account_id: int) -> BrokerAccount:
        if not self.has_view_permission(request):
            raise PermissionDenied
        account = BrokerAccount.served().filter(pk=account_id).first()
        if account is None:
            raise Http404("There is no such account at this broker.")
        return account

    def _without(
        self, request: HttpRequest, account: BrokerAccount, error: Exception
    ) -> HttpResponse:
        """Says why there is none."""
        title = f"No report: {account}"
        return self.answer(request, self.page_template, title, status=404, why_none=str(error))


def _file(figures: Mapping[str, Any], name: str) -> HttpResponse:
    answer = HttpResponse(as_csv(tables(figures)), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return answer
