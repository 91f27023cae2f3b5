"""Risk limits in the console: every change is a new version, made by `risk.limits.change`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F, Field, QuerySet
from django.db.models.expressions import Window
from django.db.models.functions import Lag
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import capfirst

from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console import text
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import moment
from risk.limits import ACCOUNT_ONLY, KEYS, change, in_force, latest
from risk.models import RiskLimits

_OFFSETS = ("buy_offset", "sell_offset")
_UNITS = {"buying_power_buffer_pct": "%", "max_slippage_pct": "%"}


if TYPE_CHECKING:
    _Form = forms.ModelForm[RiskLimits]
else:
    _Form = forms.ModelForm  # takes its type argument only when types are checked


class LimitsForm(_Form):
    """The owner's own values; an empty field falls back."""

    class Meta:
        model = RiskLimits
        fields = (*KEYS, "reason")
        widgets = {"reason": forms.Textarea(attrs={"rows": 3})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key in KEYS:
            self.fields[key].label = label(key)
            if isinstance(self.fields[key].widget, forms.Select):
                self.fields[key].widget.choices = [("", "not set"), *_field(key).flatchoices]


def shown(key: str, value: Any, offset_mode: str = "") -> str:
    """A limit's value in words; offsets get their unit where their mode is given."""
    if value in (None, ""):
        return "not set"
    if key in _OFFSETS and offset_mode == RiskLimits.OffsetMode.ABSOLUTE:
        return text.price(value)
    if key in _OFFSETS and offset_mode == RiskLimits.OffsetMode.BPS:
        return f"{text.shares(value)} bps"
    if choices := dict(_field(key).flatchoices):
        return str(choices[value])
    if key == "allowed_order_types":
        return ", ".join(sorted(value.split(",") if isinstance(value, str) else value))
    return f"{text.shares(value)} {_UNITS.get(key, '')}".strip()


def label(key: str) -> str:
    """A limit's name in words; its unit stands with its value."""
    return capfirst(str(_field(key).verbose_name).removesuffix(" pct"))


def _field(key: str) -> "Field[Any, Any]":
    return cast("Field[Any, Any]", RiskLimits._meta.get_field(key))


class OwnerFilter(admin.SimpleListFilter):
    title = "limits of"
    parameter_name = "of"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        strategies = Strategy.objects.values_list("pk", "name")
        return [("account", "the account"), *((str(pk), name) for pk, name in strategies)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        if value == "account":
            return queryset.filter(strategy=None)
        return queryset.filter(strategy_id=int(value)) if value.isdecimal() else queryset


@admin.register(RiskLimits)
class RiskLimitsAdmin(ReadOnlyAdmin[RiskLimits]):
    list_display = ("version_of", "changes", "reason", "made_by", "made")
    list_filter = (OwnerFilter,)
    list_select_related = ("account", "strategy")
    change_list_template = "console/limits.html"
    page_template = "console/limits_version.html"
    sortable_by = ()
    ordering = ("-created_at", "-pk")
    empty = (
        "Nobody has changed a limit yet: the defaults hold. Each change appears here as a version."
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "add_risklimits")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RiskLimits]:
        before = {
            f"before_{key}": Window(
                Lag(key),
                partition_by=[F("account"), F("strategy")],
                order_by=F("version").asc(),
            )
            for key in KEYS
        }
        return super().get_queryset(request).annotate(**before)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> RiskLimits | None:
        # Over the whole history: what is before a row is lost when the others are filtered away.
        if not object_id.isdecimal():
            return None
        return next((row for row in self.get_queryset(request) if row.pk == int(object_id)), None)

    @admin.display(description="limits of")
    def version_of(self, row: RiskLimits) -> str:
        return str(row)

    @admin.display(description="what changed")
    def changes(self, row: RiskLimits) -> SafeString:
        return format_html_join(
            "",
            '<span class="change">{}: {} → <b>{}</b></span>',
            ((label(key), was, now) for key, was, now in _differences(row)),
        ) or format_html("{}", "Nothing")

    @admin.display(description="made by")
    def made_by(self, row: RiskLimits) -> str:
        return row.actor

    @admin.display(description="made")
    def made(self, row: RiskLimits) -> SafeString:
        return moment(row.created_at)

    def page(self, request: HttpRequest, row: RiskLimits) -> dict[str, Any]:
        changed = {key: was for key, was, _ in _differences(row)}
        values = [
            {"label": label(key), "value": shown(key, getattr(row, key)), "was": changed.get(key)}
            for key in KEYS
        ]
        newest = latest(row.account_id, row.strategy_id)
        return {"values": values, "newest": newest is not None and newest.pk == row.pk}

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {
            "accounts": [_Owner(account, None) for account in BrokerAccount.objects.all()],
            "strategies": [_Owner(row.account, row) for row in _strategies()],
            "labels": [label(key) for key in KEYS],
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        owner = _owner(request)
        before = latest(owner.account.pk, owner.strategy.pk if owner.strategy else None)
        values = {key: getattr(before, key) for key in KEYS} if before else {}
        form = LimitsForm(request.POST or None, initial=values)
        if owner.strategy is not None:
            for key in ACCOUNT_ONLY:
                del form.fields[key]
        if request.method == "POST" and form.is_valid() and self._save(request, owner, form):
            return HttpResponseRedirect(reverse("admin:risk_risklimits_changelist"))
        force = owner.in_force
        return self.answer(
            request,
            "console/limits_form.html",
            f"Limits of {owner}",
            form=form,
            owner=owner,
            owners=[
                _Owner(owner.account, None),
                *(_Owner(owner.account, row) for row in owner.account.strategies.all()),
            ],
            rows=[
                (form[key], force[key], None if before is None else shown(key, values[key]))
                for key in KEYS
                if key in form.fields
            ],
        )

    def _save(self, request: HttpRequest, owner: "_Owner", form: LimitsForm) -> bool:
        # Only what was touched: somebody else's change of another limit must not be undone.
        touched = [key for key in form.changed_data if key in KEYS]
        if not touched:
            form.add_error(None, "Nothing was changed. Change a value, or leave the page.")
            return False
        try:
            row = change(
                account=owner.account,
                strategy=owner.strategy,
                values={key: _or_none(form.cleaned_data[key]) for key in touched},
                reason=form.cleaned_data["reason"],
                actor=person(request).get_username(),
                author=person(request),
            )
        except ValidationError as error:
            form.add_error(None, error)
            return False
        messages.success(request, f"Saved as version {row.version} of the limits of {owner}.")
        return True


class _Owner:
    """Whose limits: an account's, or one of its strategies'."""

    def __init__(self, account: BrokerAccount, strategy: Strategy | None) -> None:
        self.account = account
        self.strategy = strategy

    def __str__(self) -> str:
        if self.strategy is None:
            return f"the account {self.account}"
        return f"the strategy {self.strategy}"

    @property
    def query(self) -> str:
        """What the form's address carries."""
        return f"account={self.account.pk}" + (
            f"&strategy={self.strategy.pk}" if self.strategy else ""
        )

    @property
    def in_force(self) -> dict[str, str]:
        """Every value that holds, whoever set it."""
        limits = in_force(self.account.pk, self.strategy.pk if self.strategy else None)
        return {key: shown(key, value, limits.offset_mode) for key, value in asdict(limits).items()}


def _strategies() -> QuerySet[Strategy]:
    return Strategy.objects.select_related("account")


def _owner(request: HttpRequest) -> _Owner:
    account_id, strategy_id = request.GET.get("account", ""), request.GET.get("strategy", "")
    if strategy_id.isdecimal():
        strategy = _strategies().filter(pk=int(strategy_id)).first()
        if strategy is not None:
            return _Owner(strategy.account, strategy)
    accounts = BrokerAccount.objects.all()
    if account_id.isdecimal():
        accounts = accounts.filter(pk=int(account_id))
    account = accounts.first()
    if account is None:
        raise Http404("There is no account yet. `manage.py create_token` makes one.")
    return _Owner(account, None)


def _or_none(value: Any) -> Any:
    return None if value == "" else value


def _differences(row: RiskLimits) -> list[tuple[str, str, str]]:
    """Key, value before and value after, of what a version changed."""
    found = []
    for key in KEYS:
        was, now = getattr(row, f"before_{key}"), getattr(row, key)
        if _or_none(was) != _or_none(now):
            found.append((key, shown(key, was), shown(key, now)))
    return found
