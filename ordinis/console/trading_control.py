"""The Trading control page: what each account may do and why, and the forms that change it.

Every form posts, needs a permission and a reason, and calls one function: what may follow is
`orders.halting`'s and `risk.trading`'s to say. No GET changes anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from orders import halting, statuses
from orders.models import Order
from orders.outcomes import distances_of
from orders.selftest import last_selftest, silent
from ordinis.accounts.models import BrokerAccount
from ordinis.console import text
from ordinis.console.header import STATE_TONES, STATE_WORDS
from ordinis.console.pages import person
from risk import breaker, trading
from risk.breaker import Distance
from risk.figures import database_now
from risk.limit_windows import HELP, read_end
from risk.models import SelfTest, TradingChange, TradingControl
from risk.states import ACTIVE, HALTED, REDUCING, TradingState

# Whoever may see accounts may see what they stand at: every group of the console includes it.
SEES_THE_DESK: Final = "accounts.view_brokeraccount"
MAY_HALT: Final = "risk.halt_trading"
MAY_RESUME: Final = "risk.resume_trading"
MAY_FLATTEN: Final = "risk.flatten_positions"

CHANGES_SHOWN: Final = 50
_LONGEST_OVERRIDE: Final = timedelta(hours=24)
_TRIGGERS: Final = {
    breaker.ERROR_RATE: "Orders that failed, of those in the window",
    breaker.CONSECUTIVE_FAILURES: "Failures in a row",
    breaker.REFUSED_FOR_FUNDS: "Refusals for want of funds",
    breaker.EQUITY_DROP: "Equity lost in this session",
    breaker.BUYING_POWER_LOW: "Buying power (opens below)",
}


class Refused(Exception):
    """What was asked for was not done, and why: nothing was changed."""

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.status = status


# --- what the page shows -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trigger:
    """One of the breaker's: its value beside its threshold, and how much of the way it has gone,
    in per cent; None where there is nothing to measure."""

    name: str
    actual: str
    limit: str
    gone: int | None
    reached: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One account."""

    account: BrokerAccount
    state: TradingState
    control: TradingControl
    overridden: bool
    triggers: list[Trigger]
    open_orders: int
    changes: list[TradingChange]
    at_broker: TradingChange | None
    selftest: SelfTest | None

    @property
    def state_words(self) -> str:
        return STATE_WORDS[self.state.state]

    @property
    def state_tone(self) -> str:
        return STATE_TONES[self.state.state]

    @property
    def silent(self) -> list[str]:
        """The controls that did not fire in the last self-test."""
        return silent(self.selftest) if self.selftest else []

    @property
    def set_words(self) -> str:
        return STATE_WORDS[self.control.state]

    @property
    def seen(self) -> str:
        """What a form that loosens carries: when the state that it was made for was set."""
        return self.control.set_at.isoformat() if self.control.set_at else ""


def page(site: AdminSite, request: HttpRequest) -> HttpResponse:
    allow(request, SEES_THE_DESK)
    return _page(site, request)


def live(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """The part of one account that refreshes."""
    allow(request, SEES_THE_DESK)
    key = request.GET.get("account", "")
    account = get_object_or_404(BrokerAccount, pk=int(key) if key.isdecimal() else 0)
    return TemplateResponse(
        request, "console/trading_control_refresh.html", {"desk": _desk(account)}
    )


def _page(
    site: AdminSite, request: HttpRequest, *, status: int = 200, **context: Any
) -> HttpResponse:
    frame = site.each_context(request)
    user = person(request)
    shown = {
        "title": "Trading control",
        "desks": [_desk(account) for account in BrokerAccount.objects.all()],
        "may_resume": user.has_perm(MAY_RESUME),
        "may_flatten": user.has_perm(MAY_FLATTEN),
        "until_help": HELP,
        "states": (ACTIVE, REDUCING, HALTED),
    }
    context = {**frame, **shown, **context}
    return TemplateResponse(request, "console/trading_control.html", context, status=status)


def _desk(account: BrokerAccount) -> Desk:
    control = TradingControl.objects.filter(account=account).first()
    control = control or TradingControl(account=account)
    changes = TradingChange.objects.filter(account=account)
    return Desk(
        account=account,
        state=trading.current(account.pk),
        control=control,
        overridden=control.override_until is not None and control.override_until > timezone.now(),
        triggers=[_trigger(distance) for distance in distances_of(account.pk)],
        open_orders=open_orders(account),
        changes=list(changes[:CHANGES_SHOWN]),
        at_broker=changes.filter(kind=TradingChange.Kind.SUSPEND).first(),
        selftest=last_selftest(account),
    )


def open_orders(account: BrokerAccount) -> int:
    rows = Order.objects.filter(account=account)
    return rows.exclude(status__in=sorted(statuses.CLOSED)).count()


def _trigger(distance: Distance) -> Trigger:
    return Trigger(
        name=_TRIGGERS.get(distance.code, distance.code),
        actual=_figure(distance.actual, distance.unit),
        limit=_figure(distance.limit, distance.unit),
        gone=_gone(distance),
        reached=distance.reached,
    )


def _figure(value: Decimal | None, unit: str) -> str:
    if value is None or not value.is_finite():
        return text.NONE
    if unit == "$":
        return text.money(value)
    return f"{text.shares(value)} {unit}".strip()


def _gone(distance: Distance) -> int | None:
    of, to = distance.actual, distance.limit
    if distance.code == breaker.BUYING_POWER_LOW:  # a floor
        of, to = distance.limit, distance.actual or Decimal(0)
    if of is None or not (of.is_finite() and to.is_finite()):
        return None
    if distance.reached or to <= 0:
        return 100 if distance.reached else None
    return int(min(max(100 * of / to, Decimal(0)), Decimal(100)))


# --- its forms ----------------------------------------------------------------------------------


def act(site: AdminSite, request: HttpRequest, account_id: int, action: str) -> HttpResponse:
    """One form of the page. 403 for who may not; 400 for what was not given; 409, with nothing
    changed, where somebody was faster. Only success answers with a redirect."""
    account = get_object_or_404(BrokerAccount, pk=account_id)
    if action not in _ACTIONS:
        raise Http404("There is no such form.")
    permissions, do = _ACTIONS[action]
    allow(request, *permissions)
    reason = request.POST.get("reason", "").strip()
    try:
        if not reason:
            raise Refused("Say why: the reason stays in the history.")
        do(request, account, reason)
    except Refused as error:
        failed = f"{account.pk}-{action}"
        return _page(
            site,
            request,
            status=error.status,
            failed=failed,
            error=f"Account {account}: {error}",
            given=request.POST,
        )
    return HttpResponseRedirect(reverse("admin:trading"))


def _reduce(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    """From active it tightens; from halted it loosens, which takes another permission."""
    if request.POST.get("from") == HALTED:
        allow(request, MAY_RESUME)
        _loosen(request, account, REDUCING, reason)
        return
    allow(request, MAY_HALT)
    try:
        state = halting.reduce(account, reason=reason, actor=person(request).get_username())
    except halting.AlreadyHalted as error:
        raise Refused(str(error), 409) from error
    _tell_of_state(request, account, state)


def _resume(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    _loosen(request, account, ACTIVE, reason)


def _loosen(request: HttpRequest, account: BrokerAccount, state: str, reason: str) -> None:
    seen = request.POST.get("seen", "")
    try:
        moment = datetime.fromisoformat(seen) if seen else None
        after = halting.loosen(
            account, state, seen=moment, reason=reason, actor=person(request).get_username()
        )
    except (ValueError, halting.Moved) as error:
        moved = error if isinstance(error, halting.Moved) else "Open the page again first."
        raise Refused(str(moved), 409) from error
    _tell_of_state(request, account, after)


def _tell_of_state(request: HttpRequest, account: BrokerAccount, state: TradingState) -> None:
    words = STATE_WORDS[state.state].lower()
    why = " ".join(reason.message for reason in state.reasons if reason.state != ACTIVE)
    messages.success(request, f"Account {account}: trading is {words} now. {why}".strip())
    barred = TradingChange.objects.filter(account=account, kind=TradingChange.Kind.SUSPEND).first()
    if barred is not None and barred.to_state != "allowed":
        messages.warning(
            request,
            f"Account {account}: new orders are still barred at the broker, also those that close "
            "positions. Allow them below when trading may go on.",
        )


def _override(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    now = database_now()
    try:
        end = read_end(request.POST.get("until", ""))
        if end is None:
            raise Refused(f"Say until when: {HELP}.")
        until = now + end if isinstance(end, timedelta) else end
        if until > now + _LONGEST_OVERRIDE:
            raise Refused("An override lasts 24 hours at most. Give an earlier end.")
        trading.override(
            account.pk, until=until, reason=reason, actor=person(request).get_username()
        )
    except ValidationError as error:
        raise Refused(" ".join(error.messages)) from error
    except ValueError as error:
        raise Refused(str(error)) from error
    shown = text.moment(until, now=now)
    messages.success(request, f"Account {account}: the breaker is overridden until {shown}.")


def _end_override(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    trading.end_override(account.pk, reason=reason, actor=person(request).get_username())
    messages.success(request, f"Account {account}: the breaker is not overridden any more.")


def _bar(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    _suspend(request, account, reason, on=True)


def _unbar(request: HttpRequest, account: BrokerAccount, reason: str) -> None:
    _suspend(request, account, reason, on=False)


def _suspend(request: HttpRequest, account: BrokerAccount, reason: str, *, on: bool) -> None:
    done = halting.suspend(account, on=on, reason=reason, actor=person(request).get_username())
    if done.problem:
        messages.warning(request, f"Account {account}: {done.problem}")
    else:
        verb = "bars" if on else "allows"
        messages.success(
            request, f"Account {account}: the broker confirms that it {verb} new orders."
        )


# By the last part of the address: who may (any of them), and what is done.
_ACTIONS: Final[
    dict[str, tuple[tuple[str, ...], Callable[[HttpRequest, BrokerAccount, str], None]]]
] = {
    "reduce": ((MAY_HALT, MAY_RESUME), _reduce),
    "resume": ((MAY_RESUME,), _resume),
    "override": ((MAY_RESUME,), _override),
    "end-override": ((MAY_HALT, MAY_RESUME), _end_override),
    "bar": ((MAY_HALT,), _bar),
    "unbar": ((MAY_RESUME,), _unbar),
}


def allow(request: HttpRequest, *permissions: str) -> None:
    """Raises PermissionDenied for who has none of these."""
    if not any(person(request).has_perm(each) for each in permissions):
        raise PermissionDenied("You may not do this.")
