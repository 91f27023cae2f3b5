"""Alerts in the console: what was told of each, where; a test of the channels. Never an address."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from ordinis.alerts.channels import configured
from ordinis.alerts.models import Alert, AlertChannel, AlertMessage
from ordinis.alerts.trial import send_test
from ordinis.console.filters import EndedFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import age, badge, moment, severity

_SHOWN = 100
_STATES = AlertMessage.State
# What the list counts, and how it is called there.
_COUNTED = {_STATES.SENT: "sent", _STATES.PENDING: "waiting", _STATES.FAILED: "failed"}


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin[Alert]):
    list_display = ("problem", "weight", "message", "since", "last", "times_seen", "state", "told")
    list_filter = (EndedFilter, "severity")
    list_display_links = ("problem",)
    search_fields = ("code", "subject", "message")
    sortable_by = ()
    page_template = "console/alert.html"
    change_list_template = "console/alerts.html"
    empty = "An alert appears here when something needs a person. None stands now."

    def get_urls(self) -> list[URLPattern]:
        return [
            path("test/", self.admin_site.admin_view(require_POST(self.test)), name="alerts_test"),
            path(
                "<int:key>/close/",
                self.admin_site.admin_view(require_POST(self.close)),
                name="alerts_alert_close",
            ),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Alert]":
        of_state = {
            f"messages_{state.value}": Subquery(
                AlertMessage.objects.filter(alert=OuterRef("pk"), state=state)
                .order_by()
                .values("alert")
                .annotate(count=Count("pk"))
                .values("count")
            )
            for state in _COUNTED
        }
        return super().get_queryset(request).select_related("account").annotate(**of_state)

    @admin.display(description="problem")
    def problem(self, row: Alert) -> str:
        return row.words

    @admin.display(description="severity")
    def weight(self, row: Alert) -> SafeString:
        words = row.get_severity_display()
        return badge(words) if row.ended_at else severity(row.severity, words)

    @admin.display(description="first seen")
    def since(self, row: Alert) -> SafeString:
        return moment(row.first_seen)

    @admin.display(description="last seen")
    def last(self, row: Alert) -> SafeString:
        return age(row.last_seen)

    @admin.display(description="state")
    def state(self, row: Alert) -> str:
        return "Over" if row.ended_at else "Standing"

    @admin.display(description="times seen")
    def times_seen(self, row: Alert) -> int:
        return row.seen_count

    @admin.display(description="messages")
    def told(self, row: Alert) -> str:
        counts = {word: getattr(row, f"messages_{state.value}") for state, word in _COUNTED.items()}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        configuration = configured()
        rows = {row.name: row for row in AlertChannel.objects.filter(name__in=configuration.names)}
        shown = {
            "channels": [(name, rows.get(name)) for name in configuration.names],
            "faults": list(configuration.faults.values()),
            "dead_after": settings.ALERT_CHANNEL_DEAD_AFTER,
            "may_test": self.may(request, "send_test_alert"),
        }
        return super().changelist_view(request, {**shown, **(extra_context or {})})

    def page(self, request: HttpRequest, row: Alert) -> dict[str, Any]:
        return {
            "title": self.problem(row),
            "told": row.messages.all()[:_SHOWN],
            "may_close": row.ended_at is None and self.may(request, "close_alert"),
        }

    def test(self, request: HttpRequest) -> HttpResponse:
        """A test message on every channel; waits for the outcome."""
        if not self.may(request, "send_test_alert"):
            raise PermissionDenied
        outcomes = send_test(person(request).get_username())
        if not outcomes:
            messages.warning(
                request,
                "No channel is set up: set ORDINIS_ALERT_URLS and start Ordinis again.",
            )
        for outcome in outcomes:
            tell = messages.success if outcome.arrived else messages.error
            tell(request, f"On {outcome.channel}: {outcome.words}")
        return HttpResponseRedirect(reverse("admin:alerts_alert_changelist"))

    def close(self, request: HttpRequest, key: int) -> HttpResponse:
        """Marks the problem as seen to. One that goes on comes back as a new alert."""
        row = self.find(request, key)
        if not self.may(request, "close_alert"):
            raise PermissionDenied
        if row.close():
            messages.success(request, "Marked as seen to. If it is seen again it is a new alert.")
        else:
            messages.info(request, "It was over already.")
        return HttpResponseRedirect(reverse("admin:alerts_alert_change", args=(row.pk,)))
