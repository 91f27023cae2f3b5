"""The admin site that is the console: its addresses, its frame, and the Today page at the root.

No GET changes anything.
"""

from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_htmx.http import HttpResponseClientRefresh

from ordinis.console.header import header
from ordinis.console.pages import person
from ordinis.console.today import today

# Every page that has a place in the menu: its words, app and model.
_MENU: Final = (
    ("Orders", "orders", "order"),
    ("Positions", "positions", "position"),
    ("Breaks", "reconciliation", "break"),
    ("Corrections", "reconciliation", "correction"),
    ("Reconciliation", "reconciliation", "reconciliationreport"),
    ("Risk limits", "risk", "risklimits"),
    ("Alerts", "alerts", "alert"),
    ("Strategies", "accounts", "strategy"),
    ("Tokens", "accounts", "apitoken"),
    ("Accounts", "accounts", "brokeraccount"),
    ("Instruments", "positions", "instrument"),
    ("Users", "auth", "user"),
    ("Groups", "auth", "group"),
)
# Whoever may see accounts may see what they stand at: every group of the console includes it.
SEES_THE_DESK: Final = "accounts.view_brokeraccount"


@dataclass(frozen=True, slots=True)
class MenuEntry:
    words: str
    url: str
    current: bool


class ConsoleSite(AdminSite):
    site_header = "Ordinis"
    site_title = "Ordinis"
    index_title = "Today"
    site_url = None
    enable_nav_sidebar = False
    empty_value_display = "–"

    def get_urls(self) -> list[URLPattern | URLResolver]:
        live = [
            path("live/today/", never_cache(require_safe(self.live_today)), name="live_today"),
            path("live/header/", never_cache(require_safe(self.live_header)), name="live_header"),
        ]
        return [*live, *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = {**super().each_context(request), "mode": settings.BROKER_MODE}
        if self.has_permission(request):
            context["menu"] = self._menu(request)
            context["header"] = header() if _sees_the_desk(request) else None
        return context

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        context = {**self.each_context(request), "title": self.index_title}
        context |= {"today": self._today(request, context), **(extra_context or {})}
        return TemplateResponse(request, "console/today.html", context)

    def app_index(  # type: ignore[override]
        self, request: HttpRequest, app_label: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The menu is on every page, so an app needs none of its own."""
        return HttpResponseRedirect(reverse("admin:index"))

    def live_today(self, request: HttpRequest) -> HttpResponse:
        """The part of the Today page that refreshes."""
        if not self.has_permission(request):
            return HttpResponseClientRefresh()  # to the login, the whole page
        context = self.each_context(request)
        context["today"] = self._today(request, context)
        return TemplateResponse(request, "console/today_live.html", context)

    def live_header(self, request: HttpRequest) -> HttpResponse:
        """The part of the header that refreshes."""
        if not self.has_permission(request):
            return HttpResponseClientRefresh()
        context = {"header": header() if _sees_the_desk(request) else None}
        return TemplateResponse(request, "console/header_live.html", context)

    def _today(self, request: HttpRequest, context: dict[str, Any]) -> Any:
        return today(person(request), context["header"]) if context["header"] else None

    def _menu(self, request: HttpRequest) -> list[MenuEntry]:
        entries = [
            MenuEntry("Today", reverse("admin:index"), request.path == reverse("admin:index"))
        ]
        for words, app, model in _MENU:
            if person(request).has_perm(f"{app}.view_{model}"):
                url = reverse(f"admin:{app}_{model}_changelist")
                entries.append(MenuEntry(words, url, request.path.startswith(url)))
        return entries


def _sees_the_desk(request: HttpRequest) -> bool:
    return person(request).has_perm(SEES_THE_DESK)
