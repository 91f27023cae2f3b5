"""Positions and instruments in the console. Positions are shown, never edited; sectors are changed
by `positions.sectors` alone. Holds no rule.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Case, F, OuterRef, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.views.decorators.http import require_POST

from orders import statuses
from orders.models import Order
from ordinis.console import text
from ordinis.console.filters import AccountFilter, ChoiceFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import age, difference
from positions import sectors
from positions.models import UNKNOWN_SECTOR, Instrument, LedgerEntry, Position, SectorChange
from positions.sector_file import COLUMNS, MAX_BYTES, MAX_LINES, Parsed, parse, symbol_problem

LEDGER_SHOWN = 200
HISTORY_SHOWN = 50
# Of each list of a preview; the rest is counted.
PREVIEW_SHOWN = 500


class HeldFilter(ChoiceFilter):
    title = "held"
    parameter_name = "held"
    options = (("held", "Held by either side"), ("differs", "Differing"), ("all", "All"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.chosen() == "held":
            return queryset.exclude(qty=0, broker_qty=0)
        return queryset.exclude(qty=F("broker_qty")) if self.chosen() == "differs" else queryset


@admin.register(Position)
class PositionAdmin(ReadOnlyAdmin[Position]):
    list_display = (
        "symbol",
        "ours",
        "brokers",
        "differing",
        "differing_value",
        "free",
        "our_average",
        "broker_average",
        "market_value",
        "sector",
        "read",
    )
    list_filter = (AccountFilter, HeldFilter)
    search_fields = ("symbol",)
    list_per_page = 200
    page_template = "console/position.html"
    empty = (
        "A position appears here once our book or the broker holds its symbol: after the first "
        "comparison with the broker, or with the first fill."
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Position]:
        sector = Instrument.objects.filter(symbol=OuterRef("symbol")).values_list(sectors.COUNTS_AS)
        return (
            super()
            .get_queryset(request)
            .select_related("account")
            .annotate(sector=Coalesce(Subquery(sector), Value(UNKNOWN_SECTOR)))
        )

    def get_ordering(self, request: HttpRequest) -> Any:
        agrees = Case(When(qty=F("broker_qty"), then=Value(1)), default=Value(0))
        return (agrees.asc(), "symbol")  # what differs stands first

    @admin.display(description="our shares", ordering="qty")
    def ours(self, row: Position) -> str:
        return text.shares(row.qty)

    @admin.display(description="broker's", ordering="broker_qty")
    def brokers(self, row: Position) -> str:
        return text.shares(row.broker_qty)

    @admin.display(description="difference")
    def differing(self, row: Position) -> SafeString:
        return difference(row.drift_qty)

    @admin.display(description="difference, $")
    def differing_value(self, row: Position) -> SafeString:
        return difference(row.drift_value if row.drift_qty else None, "money")

    @admin.display(description="free")
    def free(self, row: Position) -> str:
        return text.shares(row.broker_qty_available)

    @admin.display(description="our average")
    def our_average(self, row: Position) -> str:
        return text.price(row.average_price)

    @admin.display(description="broker's average")
    def broker_average(self, row: Position) -> str:
        return text.price(row.broker_average_price)

    @admin.display(description="market value", ordering="broker_market_value")
    def market_value(self, row: Position) -> str:
        return text.money(row.broker_market_value)

    @admin.display(description="sector")
    def sector(self, row: Position) -> str:
        return row.sector  # type: ignore[attr-defined,no-any-return]

    @admin.display(description="broker read")
    def read(self, row: Position) -> SafeString:
        return age(row.broker_as_of)

    def page(self, request: HttpRequest, row: Position) -> dict[str, Any]:
        newest = row.ledger.select_related("strategy").order_by("-seq")[: LEDGER_SHOWN + 1]
        entries: list[LedgerEntry] = list(newest)
        return {
            "sector": format_html('<a href="{}">{}</a>', _address(row.symbol), self.sector(row)),
            "entries": entries[:LEDGER_SHOWN],
            "older": len(entries) > LEDGER_SHOWN,
            "corrections": row.corrections.order_by("-pk")[:10],
        }


class SectorFilter(admin.SimpleListFilter):
    """What limits count a symbol towards; "Unknown" stands first: it is work to do."""

    title = "sector"
    parameter_name = "sector"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in (UNKNOWN_SECTOR, *sectors.known_sectors())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        counting: QuerySet[Any] = queryset.alias(counts=sectors.COUNTS_AS)
        return counting.filter(counts=self.value())


@admin.register(Instrument)
class InstrumentAdmin(ReadOnlyAdmin[Instrument]):
    list_display = ("symbol", "name", "sector_now", "sub_industry", "source_now", "as_of")
    list_filter = (SectorFilter,)
    search_fields = ("symbol", "name")
    change_list_template = "console/instruments.html"
    page_template = "console/instrument.html"
    empty = "Instruments and their sectors appear here once they are loaded."

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("import/", wrap(self.import_view), name="positions_instrument_import"),
            path(
                "<str:symbol>/override/",
                wrap(require_POST(self.override_view)),
                name="positions_instrument_override",
            ),
            *super().get_urls(),
        ]

    @admin.display(description="sector", ordering=sectors.COUNTS_AS)
    def sector_now(self, row: Instrument) -> str:
        return row.counts_as

    @admin.display(description="source", ordering="source")
    def source_now(self, row: Instrument) -> str:
        return f"Override by {row.overridden_by}" if row.override_sector else row.source

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Instrument | None:
        """A symbol that nothing is stored of has a page as well: its sector is said there."""
        stored = super().get_object(request, object_id, from_field)
        return stored or (None if symbol_problem(object_id) else Instrument(symbol=object_id))

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        open_orders = Order.objects.exclude(status__in=sorted(statuses.CLOSED))
        on_order = open_orders.order_by().values_list("symbol", flat=True).distinct()
        context = {
            "may_change": self.may(request, "change_instrument"),
            "without_sector": sectors.unknown_symbols(also=on_order),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def page(self, request: HttpRequest, row: Instrument) -> dict[str, Any]:
        may_change = self.may(request, "change_instrument")
        return {
            "stored": row.as_of is not None,
            "history": [_told(change) for change in sectors.history(row.symbol)[:HISTORY_SHOWN]],
            "may_change": may_change,
            "known": sectors.known_sectors() if may_change else [],
        }

    def override_view(self, request: HttpRequest, symbol: str) -> HttpResponse:
        """400, with the reason, when nothing was changed. Only success answers with a redirect."""
        self._allow(request)
        row = self.find(request, symbol)
        given = request.POST
        sector = "" if "clear" in given else given.get("sector", "").strip()
        try:
            if not sector and "clear" not in given:
                raise sectors.NotApplied("Name the sector that it should count towards.")
            sectors.override(
                row.symbol,
                sector,
                actor=person(request).get_username(),
                reason=given.get("reason", ""),
                new_sector="new_sector" in given,
            )
        except sectors.NotApplied as error:
            shown = {**self.page(request, row), "row": row, "given": given, "error": str(error)}
            return self.answer(request, self.page_template, row.symbol, status=400, **shown)
        counts_as = self.find(request, symbol).counts_as
        messages.success(request, f"{row.symbol} counts towards the sector {counts_as} now.")
        return HttpResponseRedirect(_address(row.symbol))

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """A file, its preview, and its confirmation. Until that nothing is kept: the page carries
        the text. 409 with the new preview when what is stored has moved."""
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        self._allow(request)
        if request.method != "POST":
            return self._import_page(request)
        if "digest" in request.POST:
            return self._confirm(request)
        upload = request.FILES.get("file")
        if upload is None:
            return self._import_page(request, status=400, error="Choose a CSV file first.")
        content = upload.read(MAX_BYTES + 1)
        parsed = parse(content)
        text = "" if parsed.errors else content.decode("utf-8-sig")
        return self._import_page(
            request, parsed, text=text, file=upload.name, status=400 if parsed.errors else 200
        )

    def _confirm(self, request: HttpRequest) -> HttpResponse:
        given = request.POST
        # A form's lines end in two characters, whatever the file's ended in.
        text = given.get("text", "").replace("\r\n", "\n")
        parsed = parse(text.encode())
        try:
            made = sectors.apply(
                parsed,
                actor=person(request).get_username(),
                reason=given.get("reason", ""),
                digest=given["digest"],
                new_sectors="new_sectors" in given,
            )
        except sectors.NotApplied as error:
            status = 409 if isinstance(error, sectors.Moved) else 400
            return self._import_page(
                request, parsed, text=text, given=given, error=str(error), status=status
            )
        count = len(made.changes)
        messages.success(request, f"Imported: {count} instrument{'' if count == 1 else 's'}.")
        return HttpResponseRedirect(reverse("admin:positions_instrument_changelist"))

    def _import_page(
        self,
        request: HttpRequest,
        parsed: Parsed | None = None,
        *,
        status: int = 200,
        **context: Any,
    ) -> HttpResponse:
        return self.answer(
            request,
            "console/sectors_import.html",
            "Import sectors",
            status=status,
            preview=None if parsed is None else sectors.preview(parsed),
            shown=PREVIEW_SHOWN,
            columns=COLUMNS,
            max_lines=MAX_LINES,
            **context,
        )

    def _allow(self, request: HttpRequest) -> None:
        if not self.may(request, "change_instrument"):
            raise PermissionDenied("You may not change sectors.")


def _address(symbol: str) -> str:
    return reverse("admin:positions_instrument_change", args=(symbol,))


def _told(change: SectorChange) -> dict[str, Any]:
    """A change as far as it is of one symbol, for its page."""
    part: dict[str, dict[str, str]] = change.of_symbol  # type: ignore[attr-defined]
    differences = [
        (_words(column), part["before"].get(column), now) for column, now in part["after"].items()
    ]
    return {"row": change, "differences": differences}


def _words(column: str) -> str:
    return "Override" if column == "override_sector" else capfirst(column.replace("_", "-"))
