"""The page on which limits are changed: a form, what the change would do, and only then a version.

GET shows the form. POST with `step` "check" shows what would change and stores nothing; "edit" goes
back to the form; "save", or none, stores. What is allowed, and what waits for a second person, is
`risk.limits`' to say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.forms import BoundField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from orders.hindsight import DAYS, would_have_denied
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console.limits_text import GROUPS, bounds, column, label, shown, stored, unit, window
from ordinis.console.pages import ReadOnlyAdmin, person
from risk.exchange import CalendarUnknown, next_open
from risk.figures import database_now
from risk.limit_values import ACCOUNT_ONLY, KEYS, Limits, as_text, own, resolve
from risk.limit_windows import HELP, read_end
from risk.limits import Assessment, End, assess, change, holding, to_come
from risk.loosening import loosened
from risk.models import RiskLimits

if TYPE_CHECKING:
    _Form = forms.ModelForm[RiskLimits]
else:
    _Form = forms.ModelForm  # takes its type argument only when types are checked


class LimitsForm(_Form):
    """The owner's own values; an empty field falls back."""

    starts = forms.ChoiceField(
        choices=(("now", "Now"), ("next_session", "With the next regular session")),
        required=False,
        widget=forms.RadioSelect,
        label="Starts",
    )
    until = forms.CharField(required=False, max_length=40, label="Only until", help_text=HELP)

    class Meta:
        model = RiskLimits
        fields = (*KEYS, "reason")
        widgets = {
            "reason": forms.Textarea(attrs={"rows": 3}),
            "allowed_symbols": forms.Textarea(attrs={"rows": 2}),
            "blocked_symbols": forms.Textarea(attrs={"rows": 2}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for key in KEYS:
            self.fields[key].label = label(key)
            if isinstance(self.fields[key].widget, forms.Select):
                self.fields[key].widget.choices = [("", "not set"), *column(key).flatchoices]

    def clean_until(self) -> End:
        return read_end(self.cleaned_data["until"])

    def touched(self) -> dict[str, Any]:
        """Only what the person changed of what they saw: what somebody else has changed meanwhile
        must not be undone. A field that was not sent is left alone."""
        found: dict[str, Any] = {}
        for key in KEYS:
            if key not in self.fields or key not in self.data or key not in self.cleaned_data:
                continue
            field, seen = self.fields[key], self.data.get(f"seen-{key}", self.initial.get(key))
            try:
                before = field.to_python(seen)
            except ValidationError:
                before = None  # not what the page had said
            if field.has_changed(before, self.data[key]):
                value = self.cleaned_data[key]
                found[key] = None if value == "" else value
        return found


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose limits: an account's, or one of its strategies'."""

    account: BrokerAccount
    strategy: Strategy | None = None

    def __str__(self) -> str:
        if self.strategy is None:
            return f"the account {self.account}"
        return f"the strategy {self.strategy}"

    @property
    def strategy_id(self) -> int | None:
        return None if self.strategy is None else self.strategy.pk

    @property
    def query(self) -> str:
        """What the form's address carries."""
        return f"account={self.account.pk}" + (
            f"&strategy={self.strategy.pk}" if self.strategy else ""
        )

    def limits(self, rows: Sequence[RiskLimits]) -> tuple[dict[str, Any], Limits]:
        """Its own values and what holds for it, of the versions that hold in its account."""
        mine = own(rows, self.strategy_id)
        return mine, resolve(own(rows, None), mine if self.strategy else None)


@dataclass(frozen=True, slots=True)
class Row:
    """One limit of the form."""

    field: BoundField
    force: str
    set_here: str
    unit: str
    bounds: str
    # The field's text when the page was made, to tell what the person changed.
    seen: Any


def change_limits(page: ReadOnlyAdmin[RiskLimits], request: HttpRequest) -> HttpResponse:
    """The form, what it would do, or the redirect of a version that was stored."""
    owner = _owner(request)
    rows = list(holding().filter(account=owner.account))
    mine, force = owner.limits(rows)
    initial = {key: _given(value) for key, value in mine.items()}
    form = LimitsForm(request.POST or None, initial={**initial, "starts": "now"})
    if owner.strategy is not None:
        for key in ACCOUNT_ONLY:
            del form.fields[key]
    step = request.POST.get("step", "save")
    if request.method == "POST" and step != "edit" and form.is_valid():
        values = form.touched()
        if not values:
            form.add_error(None, "Nothing was changed. Change a value, or leave the page.")
        else:
            answer = _answer(page, request, owner, form, values, only_check=step == "check")
            if answer is not None:
                return answer
    return page.answer(
        request,
        "console/limits_form.html",
        f"Limits of {owner}",
        form=form,
        owner=owner,
        owners=_owners(owner.account),
        groups=[(words, list(_rows(form, keys, force, mine))) for words, keys in GROUPS],
        to_come=_notes(owner),
        next_session=_next_session(),
    )


def _answer(
    page: ReadOnlyAdmin[RiskLimits],
    request: HttpRequest,
    owner: Owner,
    form: LimitsForm,
    values: dict[str, Any],
    *,
    only_check: bool,
) -> HttpResponse | None:
    """None, with the form's errors filled in, where something is not allowed."""
    wanted: dict[str, Any] = {
        "account": owner.account,
        "strategy": owner.strategy,
        "values": values,
        "starts": form.cleaned_data["starts"] or "now",
        "ends_at": form.cleaned_data["until"],
    }
    try:
        if only_check:
            return _preview(page, request, owner, form, assess(**wanted))
        author = person(request)
        row = change(
            **wanted,
            reason=form.cleaned_data["reason"],
            actor=author.get_username(),
            author=author,
        )
    except ValidationError as error:
        form.add_error(None, error)
        return None
    _tell(request, owner, row)
    return HttpResponseRedirect(reverse("admin:risk_risklimits_changelist"))


def _preview(
    page: ReadOnlyAdmin[RiskLimits],
    request: HttpRequest,
    owner: Owner,
    form: LimitsForm,
    judged: Assessment,
) -> HttpResponse:
    version = judged.version
    tighter = loosened(judged.after, judged.before)
    changes = [
        {
            "label": label(key),
            "set_here": (stored(key, version.before[key]), shown(key, getattr(version, key))),
            "force": (in_words(key, judged.before), in_words(key, judged.after)),
            "loosens": key in judged.loosened,
            "tightens": key in tighter and key not in judged.loosened,
        }
        for key in version.changed
    ]
    now = database_now()
    return page.answer(
        request,
        "console/limits_check.html",
        f"Check the new limits of {owner}",
        owner=owner,
        form=form,
        given=[(name, value) for name, value in form.data.items() if name in _KEPT or _is_of(name)],
        changes=changes,
        judged=judged,
        window=window(version, now),
        **denials(judged),
        overlapping=[
            note for row, note in _notes(owner) if set(row.changed) & set(version.changed)
        ],
    )


def denials(judged: Assessment) -> dict[str, Any]:
    """What the change would have denied, for the page."""
    found = would_have_denied(judged.version.account_id, judged.strategies)
    return {
        "days": DAYS,
        "hindsight": found,
        "by_key": [(label(key), count) for key, count in found.by_key.items()],
        "examples": [(each, ", ".join(label(key) for key in each.keys)) for each in found.examples],
    }


_KEPT = ("reason", "starts", "until")


def _is_of(name: str) -> bool:
    return name.removeprefix("seen-") in KEYS


def in_words(key: str, limits: Limits) -> str:
    """A limit that holds."""
    return shown(key, getattr(limits, key), limits.offset_mode, nothing="no limit")


def _tell(request: HttpRequest, owner: Owner, row: RiskLimits) -> None:
    if row.status == RiskLimits.Status.PROPOSED:
        messages.warning(
            request,
            f"Stored as version {row.version} of the limits of {owner}. It loosens a limit, so it "
            "holds only once a second person has approved it.",
        )
    else:
        messages.success(request, f"Saved as version {row.version} of the limits of {owner}.")


def _rows(
    form: LimitsForm, keys: Sequence[str], force: Limits, mine: dict[str, Any]
) -> Iterator[Row]:
    for key in keys:
        if key not in form.fields:
            continue
        seen = form.data.get(f"seen-{key}", form.initial.get(key))
        yield Row(
            field=form[key],
            force=in_words(key, force),
            set_here=shown(key, mine.get(key), force.offset_mode),
            unit=unit(key, force.offset_mode),
            bounds=bounds(key),
            seen="" if seen is None else seen,
        )


def _given(value: Any) -> Any:
    """A value as the form's field shows it."""
    return value if isinstance(value, bool) else as_text(value)


def _notes(owner: Owner) -> list[tuple[RiskLimits, str]]:
    """Versions of this owner that wait, start later or end by themselves."""
    now = database_now()
    return [
        (row, f"{row.phase(now)}, {window(row, now)}")
        for row in to_come(owner.account.pk, now)
        if row.strategy_id == owner.strategy_id
    ]


def _next_session() -> Any:
    try:
        return next_open(database_now())
    except CalendarUnknown:
        return None


def _owners(account: BrokerAccount) -> list[Owner]:
    return [Owner(account), *(Owner(account, row) for row in account.strategies.all())]


def _owner(request: HttpRequest) -> Owner:
    account_id, strategy_id = request.GET.get("account", ""), request.GET.get("strategy", "")
    if strategy_id.isdecimal():
        strategy = Strategy.objects.select_related("account").filter(pk=int(strategy_id)).first()
        if strategy is not None:
            return Owner(strategy.account, strategy)
    accounts = BrokerAccount.objects.all()
    if account_id.isdecimal():
        accounts = accounts.filter(pk=int(account_id))
    account = accounts.first()
    if account is None:
        raise Http404("There is no account yet. `manage.py create_token` makes one.")
    return Owner(account)
