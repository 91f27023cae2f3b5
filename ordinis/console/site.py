"""The admin site that is the console: its addresses, its frame, and the Today page at the root.

No GET changes anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from ordinis.console import trading_control, trading_halt
from ordinis.console.header import header
from ordinis.console.pages import person
from ordinis.console.today import today
from ordinis.console.trading_control import MAY_HALT, SEES_THE_DESK
from ordinis.console.trading_flatten import flatten

# Every page that has a place in the menu: its words, app and model.
_MENU: Final = (
    ("Orders", "orders", "order"),
    ("Positions", "positions", "position"),
    ("Breaks", "reconciliation", "break"),
    ("Corrections", "reconciliation", "correction"),
    ("Reconciliation", "reconciliation", "reconciliationreport"),
    ("Reports", "reconciliation", "dailyreport"),
    ("Risk limits", "risk", "risklimits"),
    ("Alerts", "alerts", "alert"),
    ("Strategies", "accounts", "strategy"),
    ("Tokens", "accounts", "apitoken"),
    ("Accounts", "accounts", "brokeraccount"),
    ("Instruments", "positions", "instrument"),
    ("Users", "auth", "user"),
    ("Groups", "auth", "group"),
)
_FORM: Final = require_http_methods(["GET", "HEAD", "POST"])


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
            path("live/trading/", self._live(trading_control.live), name="live_trading"),
            path("live/halted/", self._live(trading_halt.live_halted), name="live_halted"),
        ]
        return [*live, *self._trading(), *super().get_urls()]

    def _trading(self) -> list[URLPattern]:
        pages: list[tuple[str, Callable[..., HttpResponse], Callable[..., Any], str]] = [
            ("trading/", trading_control.page, require_safe, "trading"),
            ("trading/halt/", trading_halt.halt, _FORM, "trading_halt"),
            ("trading/halted/", trading_halt.halted, require_safe, "trading_halted"),
            ("trading/flatten/", flatten, _FORM, "trading_flatten"),
            (
                "trading/<int:account_id>/<slug:action>/",
                trading_control.act,
                require_POST,
                "trading_act",
            ),
        ]
        return [
            path(address, self.admin_view(methods(self._mine(view))), name=name)
            for address, view, methods, name in pages
        ]

    def _mine(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """The page of a module of its own, given this site for its frame."""

        def show(request: HttpRequest, **named: Any) -> HttpResponse:
            return view(self, request, **named)

        return show

    def _live(self, view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        """A part of a page that refreshes."""

        def show(request: HttpRequest) -> HttpResponse:
            if not self.has_permission(request):
                return HttpResponseClientRefresh()  # to the login, the whole page
            return view(self, request)

        return never_cache(require_safe(show))

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = {**super().each_context(request), "mode": settings.BROKER_MODE}
        if self.has_permission(request):
            context["menu"] = self._menu(request)
            context["header"] = header() if _sees_the_desk(request) else None
            context["may_halt"] = person(request).has_perm(MAY_HALT)
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
        if _sees_the_desk(request):
            url = reverse("admin:trading")
            entries.append(MenuEntry("Trading control", url, request.path.startswith(url)))
        for words, app, model in _MENU:
            if person(request).has_perm(f"{app}.view_{model}"):
                url = reverse(f"admin:{app}_{model}_changelist")
                entries.append(MenuEntry(words, url, request.path.startswith(url)))
        return entries


def _sees_the_desk(request: HttpRequest) -> bool:
    return person(request).has_perm(SEES_THE_DESK)
