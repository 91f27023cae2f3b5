"""Positions and instruments in the console: shown, never edited. Holds no rule."""

from typing import Any

from django.contrib import admin
from django.db.models import Case, F, OuterRef, QuerySet, Subquery, Value, When
from django.http import HttpRequest
from django.utils.safestring import SafeString

from ordinis.console import text
from ordinis.console.filters import AccountFilter, ChoiceFilter
from ordinis.console.pages import ReadOnlyAdmin
from ordinis.console.templatetags.console import age, difference
from positions.models import Instrument, LedgerEntry, Position

LEDGER_SHOWN = 200


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
        sector = Instrument.objects.filter(symbol=OuterRef("symbol")).values("sector")
        return (
            super()
            .get_queryset(request)
            .select_related("account")
            .annotate(sector=Subquery(sector))
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
        return row.sector or "Unknown"  # type: ignore[attr-defined]

    @admin.display(description="broker read")
    def read(self, row: Position) -> SafeString:
        return age(row.broker_as_of)

    def page(self, request: HttpRequest, row: Position) -> dict[str, Any]:
        newest = row.ledger.select_related("strategy").order_by("-seq")[: LEDGER_SHOWN + 1]
        entries: list[LedgerEntry] = list(newest)
        return {
            "sector": self.sector(row),
            "entries": entries[:LEDGER_SHOWN],
            "older": len(entries) > LEDGER_SHOWN,
            "corrections": row.corrections.order_by("-pk")[:10],
        }


@admin.register(Instrument)
class InstrumentAdmin(ReadOnlyAdmin[Instrument]):
    list_display = ("symbol", "name", "sector", "sub_industry", "source", "as_of")
    list_filter = ("sector",)
    search_fields = ("symbol", "name")
    page_fields = ("symbol", "name", "sector", "sub_industry", "source", "as_of")
    empty = "Instruments and their sectors appear here once they are loaded."
