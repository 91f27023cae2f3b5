"""Orders in the console: shown, never edited. Holds no rule."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.urls import URLPattern, path
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from orders import statuses
from orders.counted import Counted, counted
from orders.models import Order, OrderHistory
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console import orders_work, text
from ordinis.console.filters import AccountFilter, ChoiceFilter, DayFilter, SymbolFilter
from ordinis.console.pages import ReadOnlyAdmin
from ordinis.console.templatetags.console import age, moment, order_status

COMMITMENTS_SHOWN = 500


class StateFilter(ChoiceFilter):
    title = "state"
    parameter_name = "state"
    options = (
        ("all", "All"),
        ("open", "Open"),
        ("unresolved", "Unresolved"),
        ("partially_filled", "Partially filled"),
        ("filled", "Filled"),
        ("cancelled", "Cancelled"),
        ("denied", "Denied by risk"),
        ("rejected", "Rejected"),
    )

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.chosen():
            case "all":
                return queryset
            case "open":
                return queryset.exclude(status__in=sorted(statuses.CLOSED))
            case "cancelled":
                return queryset.filter(status__in=("canceled", "expired", "replaced"))
            case "rejected":
                return queryset.filter(status__in=(statuses.REJECTED, statuses.FAILED))
            case status:
                return queryset.filter(status=status)


class SideFilter(ChoiceFilter):
    title = "side"
    parameter_name = "side"
    options = (("both", "Both"), ("buy", "Buy"), ("sell", "Sell"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.chosen() == "both" else queryset.filter(side=self.chosen())


class StrategyFilter(admin.SimpleListFilter):
    title = "strategy"
    parameter_name = "strategy"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in Strategy.objects.values_list("pk", "name")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(strategy_id=int(value)) if value.isdecimal() else queryset


@dataclass(frozen=True, slots=True)
class Step:
    """A history row, and how long the order had waited for it."""

    row: OrderHistory
    waited: timedelta | None
    delayed: timedelta | None


@dataclass(frozen=True, slots=True)
class Relative:
    """An order that belongs to the one that is shown, and how."""

    order: Order
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitments:
    """An account, and its orders that count; dollars."""

    account: BrokerAccount
    orders: list[Counted]
    more: int
    money: Decimal
    exposure: Decimal

    @property
    def available(self) -> Decimal | None:
        held = self.account.buying_power
        return None if held is None else held - self.money


def _committed_by(account: BrokerAccount) -> Commitments:
    orders = counted(account)
    return Commitments(
        account=account,
        orders=orders[:COMMITMENTS_SHOWN],
        more=max(len(orders) - COMMITMENTS_SHOWN, 0),
        money=sum((each.money for each in orders), Decimal(0)),
        exposure=sum((each.exposure for each in orders), Decimal(0)),
    )


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin[Order]):
    list_display = (
        "client_order_id",
        "shown_status",
        "symbol",
        "side",
        "shares",
        "filled",
        "limit",
        "strategy",
        "created",
        "updated",
    )
    list_select_related = ("strategy",)
    list_filter = (AccountFilter, StateFilter, SideFilter, StrategyFilter, SymbolFilter, DayFilter)
    search_fields = ("client_order_id",)  # what is searched: see get_search_results
    search_help_text = "Symbol, start of a client order id, or any whole id."
    sortable_by = ()  # newest first is the one order that an index gives on a long table
    page_template = "console/order.html"
    empty = (
        "An order appears here as soon as a strategy sends one to POST /api/v1/orders, also when "
        "it is denied. If a filter is set, clear it to see the others."
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = (
            Q(symbol=term.upper())
            | Q(client_order_id__startswith=term)
            | Q(broker_order_id=term)
            | Q(correlation_id=term)
        )
        with contextlib.suppress(ValueError):
            wanted |= Q(pk=UUID(term))
        return queryset.filter(wanted), False

    @admin.display(description="status")
    def shown_status(self, row: Order) -> SafeString:
        return order_status(row.status)

    @admin.display(description="shares")
    def shares(self, row: Order) -> str:
        return text.shares(row.qty)

    @admin.display(description="filled")
    def filled(self, row: Order) -> str:
        return text.shares(row.filled_qty)

    @admin.display(description="limit price")
    def limit(self, row: Order) -> str:
        return text.price(row.limit_price)

    @admin.display(description="created")
    def created(self, row: Order) -> SafeString:
        return moment(row.created_at)

    @admin.display(description="last change")
    def updated(self, row: Order) -> SafeString:
        return age(row.updated_at)

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("commitments/", wrap(self.commitments), name="orders_order_commitments"),
            path(
                "<uuid:key>/cancel/",
                wrap(require_POST(self.act)),
                {"do": orders_work.cancel},
                name="orders_order_cancel",
            ),
            path(
                "<uuid:key>/look-up/",
                wrap(require_POST(self.act)),
                {"do": orders_work.look_up},
                name="orders_order_look_up",
            ),
            *super().get_urls(),
        ]

    def act(self, request: HttpRequest, key: UUID, do: Callable[..., HttpResponse]) -> HttpResponse:
        def again(*, status: int, error: str) -> HttpResponse:
            row = self.find(request, str(key))
            given = {"error": error, "reason": request.POST.get("reason", "")}
            context = {**self.page(request, row), **given}
            return self.answer(
                request, self.page_template, str(row), status=status, row=row, **context
            )

        return do(self, request, self.find(request, str(key)), again)

    def commitments(self, request: HttpRequest) -> HttpResponse:
        """Each order that counts when the next one is judged, and why."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        accounts = [_committed_by(account) for account in BrokerAccount.objects.all()]
        return self.answer(
            request, "console/commitments.html", "What orders commit", accounts=accounts
        )

    def page(self, request: HttpRequest, row: Order) -> dict[str, Any]:
        fills = list(row.fills.select_related("ledger_entry__position"))
        entries = {fill.ledger_entry_id: fill.ledger_entry for fill in fills}
        return {
            **orders_work.offered(self, request, row),
            "family": _family(row),
            "steps": _steps(list(row.history.order_by("seq"))),
            "fills": fills,
            "entries": [entries[key] for key in sorted(entries)],
        }


def _family(row: Order) -> list[Relative]:
    """Parent, dependents, and what replaced or was replaced: one question."""
    chain = Order.objects.filter(pk=row.pk).values("chain")
    rows = Order.objects.filter(
        Q(chain__in=chain) | Q(parent__chain__in=chain) | Q(pk=row.parent_id)
    ).exclude(pk=row.pk)
    return [Relative(order, _relation(row, order)) for order in rows.order_by("created_at", "role")]


def _relation(row: Order, other: Order) -> str:
    if other.chain == row.chain:
        return "Replaced by it" if other.created_at < row.created_at else "Replaced it"
    return "Its parent" if other.pk == row.parent_id else other.get_role_display()


def _steps(history: list[OrderHistory]) -> list[Step]:
    steps = []
    before: OrderHistory | None = None
    for row in history:
        delayed = row.received_at - row.occurred_at
        steps.append(
            Step(
                row=row,
                waited=None if before is None else row.received_at - before.received_at,
                # The broker's clock and ours differ a little; a real delay is worth showing.
                delayed=delayed if delayed >= timedelta(seconds=1) else None,
            )
        )
        before = row
    return steps
