"""The pages of the kill switch: one asks once more and halts, the next shows each order's cancel as
it is confirmed, and never calls it done before.

What a halt does is `orders.halting`'s to say. No GET changes anything.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import reverse

from orders import halting
from orders.halting import Halted
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.console import text
from ordinis.console.pages import person
from ordinis.console.trading_control import MAY_HALT, SEES_THE_DESK, allow, open_orders

ORDERS_SHOWN: Final = 200
_FOREIGN_TOLD: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def halt(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """GET asks once more, POST halts: what cannot be confirmed is said, and the halt stands."""
    allow(request, MAY_HALT)
    given = request.POST if request.method == "POST" else request.GET
    accounts = list(BrokerAccount.objects.all())
    chosen = [each for each in accounts if str(each.pk) in given.getlist("account")]
    if request.method != "POST":
        return _halt_page(site, request, accounts, chosen or accounts, "Halted from the console")
    reason = given.get("reason", "").strip()
    if not chosen or not reason:
        error = "Say why: the reason stays in the history." if chosen else ""
        error = error or "Choose at least one account."
        return _halt_page(site, request, accounts, chosen, reason, status=400, error=error)
    cancels = given.get("cancel") != "no"
    done = list(
        halting.halt_all(
            chosen,
            reason=reason,
            actor=person(request).get_username(),
            cancel_open_orders=cancels,
            suspend_at_broker="suspend" in given,
        )
    )
    for each in done:
        _tell_of_halt(request, each)
        left = 0 if cancels else open_orders(each.account)
        if left:
            messages.warning(request, f"Account {each.account}: {_left_working(left)}")
    if not cancels:
        return HttpResponseRedirect(reverse("admin:trading"))
    query = QueryDict(mutable=True)
    query.setlist("of", [f"{each.account.pk}-{_micros(each.began)}" for each in done])
    return HttpResponseRedirect(f"{reverse('admin:trading_halted')}?{query.urlencode()}")


def _halt_page(
    site: AdminSite,
    request: HttpRequest,
    accounts: list[BrokerAccount],
    chosen: list[BrokerAccount],
    reason: str,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    shown = {
        "title": "Halt trading",
        "accounts": [(each, open_orders(each)) for each in accounts],
        "chosen": chosen,
        # Of several others may be chosen, without a script that counts along.
        "count": open_orders(accounts[0]) if len(accounts) == 1 else None,
        "reason": reason,
        "suspend": "suspend" in request.POST,
    }
    context = {**site.each_context(request), **shown, **context}
    return TemplateResponse(request, "console/trading_control_halt.html", context, status=status)


def _left_working(count: int) -> str:
    return (
        f"{count} open order{'s' if count > 1 else ''} may still fill, and exits of what fills "
        "wait until trading is resumed."
    )


def _tell_of_halt(request: HttpRequest, done: Halted) -> None:
    name = f"Account {done.account}"
    messages.success(request, f"{name} is halted: only cancels pass until a person resumes.")
    if done.suspended_at_broker:
        messages.success(request, f"{name}: the broker confirms that it bars new orders.")
    foreign = [each for each in done.outcomes if each.order is None]
    for each in foreign[:_FOREIGN_TOLD]:
        tell = messages.warning if each.outcome in ("failed", "pending") else messages.info
        told = f"broker order {each.broker_order_id}: {text.status(each.outcome).lower()}"
        tell(request, f"{name}: {told}. {each.detail}")
    if len(foreign) > _FOREIGN_TOLD:
        more = len(foreign) - _FOREIGN_TOLD
        messages.info(request, f"{name}: {more} more orders were not placed by Ordinis.")
    for sentence in done.unconfirmed:
        messages.warning(request, f"{name}: {sentence}")


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancels:
    """What has become of one account's orders since a halt began."""

    account: BrokerAccount
    orders: list[Order]

    @property
    def shown(self) -> list[Order]:
        return self.orders[:ORDERS_SHOWN]

    @property
    def open(self) -> int:
        return sum(order.is_open for order in self.orders)

    @property
    def ended(self) -> int:
        return len(self.orders) - self.open


def halted(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Each order as its cancel is confirmed; it is not called done before it is."""
    allow(request, SEES_THE_DESK)
    context = {"title": "Cancelling after the halt", **site.each_context(request)}
    return TemplateResponse(
        request, "console/trading_control_halted.html", {**context, **_progress(request)}
    )


def live_halted(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """The part of it that refreshes, until no order is open."""
    allow(request, SEES_THE_DESK)
    return TemplateResponse(request, "console/trading_control_outcomes.html", _progress(request))


def _progress(request: HttpRequest) -> dict[str, Any]:
    found = []
    for told in request.GET.getlist("of"):
        key, _, began = told.partition("-")
        if not (key.isdecimal() and began.isdecimal() and len(began) <= 17):
            raise Http404("There was no such halt.")
        account = get_object_or_404(BrokerAccount, pk=int(key))
        moment = _EPOCH + timedelta(microseconds=int(began))
        found.append(Cancels(account=account, orders=halting.touched(account, moment)))
    query = QueryDict(mutable=True)
    query.setlist("of", request.GET.getlist("of"))
    return {"cancels": found, "query": query.urlencode(), "waits": any(each.open for each in found)}
