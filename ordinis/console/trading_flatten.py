"""The page that closes an account's positions: GET shows each order as it would be sent, POST sends
exactly those, after the account's name was typed.

What was shown travels with the form, signed: nothing else can be sent by it, a second press sends
nothing twice, and prices that have grown old are refused.
"""

from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from secrets import token_hex
from typing import Any, Final

from django.contrib.admin import AdminSite
from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from orders.flattening import MAX_SLIPPAGE_PCT, Closing, TradingHalted, check_not_halted, propose
from orders.flattening import flatten as send
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.console.pages import person
from ordinis.console.trading_control import MAY_FLATTEN
from risk import trading

_SALT: Final = "ordinis.console.trading_flatten"
# Seconds for which the prices that were shown hold.
_GOOD_FOR: Final = 120
_SLIPPAGE: Final = Decimal(1)
_FIGURES: Final = ("held", "qty", "price", "limit_price")


def flatten(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """400 without the account's name or with prices that are old; 409 while it is halted. In each
    case nothing is sent, and the page shows new prices."""
    if not person(request).has_perm(MAY_FLATTEN):
        raise PermissionDenied("You may not flatten positions.")
    account = _account(request)
    if request.method != "POST":
        return _page(site, request, account)
    try:
        plan = signing.loads(request.POST.get("plan", ""), salt=_SALT, max_age=_GOOD_FOR)
    except signing.SignatureExpired:
        error = "The prices that you saw are older than two minutes. Nothing was sent: look again."
        return _page(site, request, account, status=400, error=error)
    except signing.BadSignature as unsigned:
        raise Http404("This form was not made by Ordinis.") from unsigned
    if plan["account"] != account.pk:
        raise Http404("This form was made for another account.")
    closings = [_closing(row) for row in plan["orders"]]
    if request.POST.get("name", "").strip() != account.name:
        error = f"Nothing was sent. Type the account's name, {account}, to confirm."
        shown = {"closings": closings, "plan": request.POST["plan"], "error": error}
        return _page(site, request, account, status=400, **shown)
    actor = person(request).get_username()
    try:
        sent = send(account, closings, token=plan["token"], actor=actor)
    except TradingHalted:
        return _page(site, request, account, status=409)
    context = {
        **site.each_context(request),
        "title": f"Closing the positions of {account}",
        "account": account,
        "sent": sent,
        "plan": request.POST["plan"],
        "left": any(each.order is None and each.closing.limit_price for each in sent),
    }
    return TemplateResponse(request, "console/trading_control_flattened.html", context)


def _account(request: HttpRequest) -> BrokerAccount:
    key = request.GET.get("account", "")
    accounts = BrokerAccount.objects.filter(pk=int(key)) if key.isdecimal() else None
    account = (accounts if accounts is not None else BrokerAccount.served()).first()
    if account is None:
        raise Http404("There is no such account.")
    return account


def _page(
    site: AdminSite,
    request: HttpRequest,
    account: BrokerAccount,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    shown: dict[str, Any] = {
        "title": f"Close all positions of {account}",
        "account": account,
        "slippage": request.GET.get("slippage", f"{_SLIPPAGE}"),
        "most": MAX_SLIPPAGE_PCT,
        "state": trading.current(account.pk).state,
    }
    try:
        check_not_halted(account)
        if "closings" not in context:
            closings = propose(account, _number(shown["slippage"]))
            shown |= {"closings": closings, "plan": _signed(account, closings)}
    except TradingHalted as error:
        shown["refused"] = str(error)
    except ValueError as error:
        shown["refused"], status = str(error), 400
    except (BrokerUnavailable, BrokerRefused) as error:
        shown["refused"] = f"The broker's positions could not be read: {error.message} Try again."
        status = 503
    context = {**site.each_context(request), **shown, **context}
    context["count"] = sum(each.limit_price is not None for each in context.get("closings", ()))
    return TemplateResponse(request, "console/trading_control_flatten.html", context, status=status)


def _number(given: str) -> Decimal:
    try:
        return Decimal(given)
    except InvalidOperation as error:
        raise ValueError("The slippage is a number of per cent, such as 1.") from error


def _signed(account: BrokerAccount, closings: list[Closing]) -> str:
    rows = [
        {name: value if value is None else str(value) for name, value in asdict(closing).items()}
        for closing in closings
    ]
    plan = {"account": account.pk, "token": token_hex(8), "orders": rows}
    return signing.dumps(plan, salt=_SALT, compress=True)


def _closing(row: dict[str, Any]) -> Closing:
    numbers = {name: None if row[name] is None else Decimal(row[name]) for name in _FIGURES}
    return Closing(**{**row, **numbers})
