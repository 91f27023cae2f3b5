"""Accounts, strategies and tokens in the console. A token's secret is shown once and never kept;
an account or a strategy is never deleted, since orders rest on them.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from orders import statuses
from orders.models import Order
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from ordinis.console import text
from ordinis.console.days import start_of_today
from ordinis.console.pages import ReadOnlyAdmin
from ordinis.console.templatetags.console import age, badge, moment

_SCOPE_WORDS = {
    "read": "read: see orders, positions and account",
    "trade": "trade: send and cancel its own orders",
    "operate": "operate: compare now, halt, cancel everything",
}


@admin.register(BrokerAccount)
class BrokerAccountAdmin(ReadOnlyAdmin[BrokerAccount]):
    list_display = ("name", "mode", "broker", "equity_of", "cash_of", "buying_power_of", "read")
    page_fields = (
        "name",
        "broker",
        "mode",
        "account_number",
        "equity",
        "cash",
        "buying_power",
        "as_of",
        "opened_at",
        "created_at",
    )
    empty = "An account appears here when `manage.py create_token` makes its first token."

    @admin.display(description="equity", ordering="equity")
    def equity_of(self, row: BrokerAccount) -> str:
        return text.money(row.equity)

    @admin.display(description="cash", ordering="cash")
    def cash_of(self, row: BrokerAccount) -> str:
        return text.money(row.cash)

    @admin.display(description="buying power", ordering="buying_power")
    def buying_power_of(self, row: BrokerAccount) -> str:
        return text.money(row.buying_power)

    @admin.display(description="broker read")
    def read(self, row: BrokerAccount) -> SafeString:
        return age(row.as_of)


@admin.register(Strategy)
class StrategyAdmin(ReadOnlyAdmin[Strategy]):
    list_display = ("name", "account", "orders_today", "denied_today", "last_order", "keys")
    list_select_related = ("account",)
    fields = ("account", "name")
    page_template = "console/strategy.html"
    empty = "A strategy appears here when it is added, or when its first token is made."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_strategy")

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        # No shortcuts into other forms: accounts are not made here.
        form.base_fields["account"].widget.can_view_related = False
        return form

    def get_queryset(self, request: HttpRequest) -> QuerySet[Strategy]:
        mine = Order.objects.filter(strategy=OuterRef("pk")).order_by()
        today = mine.filter(created_at__gte=start_of_today())
        living = ApiToken.objects.filter(strategy=OuterRef("pk"), revoked_at=None).order_by()
        return (
            super()
            .get_queryset(request)
            .annotate(
                placed=_count(today, "strategy"),
                denied=_count(today.filter(status=statuses.DENIED), "strategy"),
                living_tokens=_count(living, "strategy"),
                last_at=Subquery(mine.order_by("-created_at").values("created_at")[:1]),
            )
        )

    @admin.display(description="orders today")
    def orders_today(self, row: Strategy) -> int:
        return row.placed  # type: ignore[attr-defined,no-any-return]

    @admin.display(description="denied today")
    def denied_today(self, row: Strategy) -> int:
        return row.denied  # type: ignore[attr-defined,no-any-return]

    @admin.display(description="last order")
    def last_order(self, row: Strategy) -> SafeString:
        return age(row.last_at)  # type: ignore[attr-defined]

    @admin.display(description="tokens in use")
    def keys(self, row: Strategy) -> int:
        return row.living_tokens  # type: ignore[attr-defined,no-any-return]

    def page(self, request: HttpRequest, row: Strategy) -> dict[str, Any]:
        tokens = row.tokens.all() if self.may(request, "view_apitoken") else None
        return {
            "last_orders": row.orders.all()[:20],
            "tokens": tokens,
            "may_issue": self.may(request, "add_apitoken"),
        }


class TokenForm(forms.Form):
    """What a new token is for."""

    strategy = forms.ModelChoiceField(
        Strategy.objects.select_related("account"), help_text="The token acts for this strategy."
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, _SCOPE_WORDS[scope]) for scope in SCOPES],
        widget=forms.CheckboxSelectMultiple,
        help_text="Give no more than the program needs.",
    )
    expires_at = forms.DateTimeField(
        required=False,
        label="Expires (ET)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text="Exchange time. Empty: it holds until it is revoked.",
    )

    def clean_expires_at(self) -> Any:
        value = self.cleaned_data["expires_at"]
        if value is not None and value <= timezone.now():
            raise forms.ValidationError("This is past. Choose a later time, or leave it empty.")
        return value


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin[ApiToken]):
    list_display = ("begins", "strategy", "scope_words", "state", "used", "expires", "made")
    list_select_related = ("strategy",)
    list_filter = ("strategy",)
    page_template = "console/token.html"
    empty = "A token appears here when it is issued. Its secret is shown once, then."

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_apitoken")

    def get_urls(self) -> list[URLPattern]:
        revoke = self.admin_site.admin_view(require_POST(self.revoke))
        return [
            path("<int:key>/revoke/", revoke, name="accounts_apitoken_revoke"),
            *super().get_urls(),
        ]

    @admin.display(description="begins with")
    def begins(self, row: ApiToken) -> str:
        return f"{row.hint}…"

    @admin.display(description="scopes")
    def scope_words(self, row: ApiToken) -> str:
        return ", ".join(row.scopes)

    @admin.display(description="state")
    def state(self, row: ApiToken) -> SafeString:
        if row.revoked_at:
            return badge("Revoked")
        expired = row.expires_at is not None and row.expires_at <= timezone.now()
        return badge("Expired" if expired else "In use")

    @admin.display(description="last use", empty_value="never")
    def used(self, row: ApiToken) -> SafeString | None:
        return age(row.last_used_at) if row.last_used_at else None

    @admin.display(description="expires", empty_value="never")
    def expires(self, row: ApiToken) -> SafeString | None:
        return moment(row.expires_at) if row.expires_at else None

    @admin.display(description="issued")
    def made(self, row: ApiToken) -> SafeString:
        return moment(row.created_at)

    def page(self, request: HttpRequest, row: ApiToken) -> dict[str, Any]:
        may_revoke = row.revoked_at is None and self.may(request, "change_apitoken")
        return {"title": f"Token {row.hint}…", "state": self.state(row), "may_revoke": may_revoke}

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = TokenForm(request.POST or None, initial={"strategy": request.GET.get("strategy")})
        if request.method != "POST" or not form.is_valid():
            return self.answer(request, "console/token_form.html", "Issue a token", form=form)
        given = form.cleaned_data
        token, secret = ApiToken.issue(
            given["strategy"], tuple(given["scopes"]), given["expires_at"]
        )
        self.log_addition(request, token, f"Issued with {', '.join(token.scopes)}.")
        return self.answer(
            request, "console/token_issued.html", "Token issued", row=token, secret=secret
        )

    def revoke(self, request: HttpRequest, key: int) -> HttpResponse:
        if not self.may(request, "change_apitoken"):
            raise PermissionDenied
        token = self.find(request, key)
        token.revoke()
        self.log_change(request, token, "Revoked.")
        messages.success(request, f"Token {token.hint}… is revoked and opens nothing any more.")
        return HttpResponseRedirect(reverse("admin:accounts_apitoken_changelist"))


def _count(rows: QuerySet[Any], by: str) -> Coalesce:
    """How many of `rows` belong to the outer row, without joining them in."""
    counted = rows.values(by).annotate(number=Count("pk")).values("number")
    return Coalesce(Subquery(counted, output_field=IntegerField()), 0)
