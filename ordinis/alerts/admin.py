"""Alerts in the console: shown, never edited."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ordinis.alerts.models import Alert
from ordinis.console.filters import EndedFilter
from ordinis.console.pages import ReadOnlyAdmin
from ordinis.console.templatetags.console import age, badge, moment, severity


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin[Alert]):
    list_display = ("problem", "weight", "message", "since", "last", "times_seen", "state")
    list_filter = (EndedFilter, "severity")
    list_display_links = ("problem",)
    search_fields = ("code", "subject", "message")
    sortable_by = ()
    page_template = "console/alert.html"
    empty = "An alert appears here when something needs a person. None stands now."

    @admin.display(description="problem")
    def problem(self, row: Alert) -> str:
        return row.code.replace("_", " ").capitalize()

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

    def page(self, request: HttpRequest, row: Alert) -> dict[str, Any]:
        return {"title": self.problem(row)}
