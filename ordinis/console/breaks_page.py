"""The page of one break: both sides, what explains it, what can be done, evidence, history."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods, require_POST

from ordinis.console import breaks_text, breaks_work, text
from ordinis.console.breaks_evidence import trail
from ordinis.console.breaks_list import BreakList, people
from ordinis.console.breaks_order import order_terms
from ordinis.console.pages import person
from reconciliation import corrections, queue
from reconciliation.models import Break, Correction, Kind

EVENTS_SHOWN = 300
# How loud its summary is, while it stands.
_TONES = {Break.Severity.CRITICAL: "red", Break.Severity.WARNING: "amber"}


class BreakAdmin(BreakList):
    page_template = "console/break.html"

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        form = require_http_methods(["GET", "HEAD", "POST"])
        actions = [
            path(
                f"<int:key>/{name}/",
                wrap(require_POST(self.act)),
                {"action": name},
                name=f"reconciliation_break_{name}",
            )
            for name in breaks_work.ACTIONS
        ]
        return [
            path("work/", wrap(require_POST(self.work)), name="reconciliation_break_work"),
            path(
                "<int:key>/restore/",
                wrap(form(self.restore)),
                name="reconciliation_break_restore",
            ),
            *actions,
            *super().get_urls(),
        ]

    def work(self, request: HttpRequest) -> HttpResponse:
        return breaks_work.many(self, request)

    def restore(self, request: HttpRequest, key: int) -> HttpResponse:
        return breaks_work.restore(self, request, self.find(request, key))

    def act(self, request: HttpRequest, key: int, action: str) -> HttpResponse:
        def again(*, status: int, **given: Any) -> HttpResponse:
            row = self.find(request, key)
            shown = self.page(request, row)
            title = shown.pop("title")
            return self.answer(
                request, self.page_template, title, status=status, row=row, **{**shown, **given}
            )

        return breaks_work.act(self, request, self.find(request, key), action, again)

    def page(self, request: HttpRequest, row: Break) -> dict[str, Any]:
        found = list(
            row.corrections.select_related("position", "proposed_by", "decided_by")[:EVENTS_SHOWN]
        )
        waiting = next((c for c in found if c.status == Correction.Status.PROPOSED), None)
        events = list(row.events.order_by("-at", "-pk")[: EVENTS_SHOWN + 1])
        may_work = self.may(request, breaks_work.WORK)
        may_act = row.is_open and self.may(request, breaks_work.PROPOSE)
        may_propose = may_act and waiting is None
        # Ordinis' own proposal gives way to a person's trade; another person's does not.
        may_restore = may_act and (waiting is None or waiting.proposed_by_id is None)
        return {
            "title": f"{breaks_text.subject(row)}: {breaks_text.KIND_WORDS[row.kind].lower()}",
            "tone": _TONES[Break.Severity(row.severity)] if row.is_open else "",
            "unit": _UNITS[breaks_text.unit(row.kind)],
            "difference_name": f"Difference, {_UNITS[breaks_text.unit(row.kind)]}",
            "worth": text.money(row.value),
            "corrections": found,
            "waiting": waiting,
            "may_decide": waiting is not None and corrections.may_decide(waiting, person(request)),
            "may_propose": may_propose and row.kind in breaks_work.CORRECTED,
            "may_restore": may_restore and row.kind in breaks_work.TRADED_BACK,
            "may_adopt": may_act and row.kind == Kind.ORDER_EXTERNAL,
            "may_work": may_work,
            "may_acknowledge": may_work and row.status not in (Break.Status.ACKNOWLEDGED, *_ENDED),
            "may_resolve": may_work and not queue.why_not_resolved(row),
            "is_mass": row.kind == Kind.MASS,
            "differ": -row.difference,
            "order_terms": order_terms(row) if row.kind == Kind.ORDER_EXTERNAL else [],
            "who_decides": breaks_work.who_decides(person(request)) if may_act else "",
            "people": people() if may_work and row.is_open else [],
            "trail": trail(row),
            "events": events[:EVENTS_SHOWN][::-1],
            "earlier_events": len(events) > EVENTS_SHOWN,
        }


_ENDED = (Break.Status.HEALED, Break.Status.RESOLVED)
_UNITS = {
    breaks_text.SHARES: "shares",
    breaks_text.DOLLARS: "dollars",
    breaks_text.PRICE: "dollars a share",
    breaks_text.COUNT: "positions and open orders",
}
