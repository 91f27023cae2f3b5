"""What people do with one order from the console: cancel it, look it up at the broker. Parses,
calls one function, answers: what follows is `orders.cancelling`'s and `orders.sync`'s to say.
"""

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from orders import cancelling, statuses, sync
from orders.errors import OrderError
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.console import text
from ordinis.console.pages import ReadOnlyAdmin, person

CANCEL: Final = "cancel_order"
LONGEST_REASON: Final = 500

# Shows the page again: with a status, and what was wrong.
Again = Callable[..., HttpResponse]


def offered(page: ReadOnlyAdmin[Order], request: HttpRequest, row: Order) -> dict[str, Any]:
    """What the page of an order offers this person."""
    may = row.is_open and page.may(request, CANCEL)
    return {
        "may_cancel": may,
        "may_look_up": may and _can_be_looked_up(row),
        "longest_reason": LONGEST_REASON,
    }


def cancel(
    page: ReadOnlyAdmin[Order], request: HttpRequest, row: Order, again: Again
) -> HttpResponse:
    """400 for a reason that is too long; 503, with why, where the broker could not be asked."""
    _allow(page, request)
    reason = request.POST.get("reason", "").strip()
    if len(reason) > LONGEST_REASON:
        return again(status=400, error=f"A reason has at most {LONGEST_REASON} characters.")
    if not row.is_open:
        return _ended(request, row)
    origin = Origin(
        Source.OPERATOR, person(request).get_username(), reason or "Its cancel was asked for."
    )
    try:
        after = cancelling.cancel(row, origin)
    except OrderError as error:
        return again(status=503, error=str(error))
    if not after.is_open:
        return _ended(request, after)
    messages.success(
        request,
        "Its cancel is on its way. Until the broker says that it has ended, it may still fill.",
    )
    return _back(row)


def look_up(
    page: ReadOnlyAdmin[Order], request: HttpRequest, row: Order, again: Again
) -> HttpResponse:
    """Brings what the broker says of it now to its history; 503, with why, where it can't be
    asked."""
    _allow(page, request)
    if not row.is_open:
        return _ended(request, row)
    if not _can_be_looked_up(row):
        error = "The broker has not acknowledged it; Ordinis is finding out by itself."
        return again(status=409, error=error)
    try:
        after = sync.look_up(row)
    except OrderError as error:
        return again(status=503, error=str(error))
    said = text.status(after.status).lower()
    messages.success(
        request,
        f"Looked up: it is {said}, with {text.shares(after.filled_qty)} of "
        f"{text.shares(after.qty)} filled.",
    )
    return _back(row)


def _can_be_looked_up(row: Order) -> bool:
    return row.broker_order_id is not None and row.status not in statuses.UNPROVED


def _ended(request: HttpRequest, row: Order) -> HttpResponse:
    messages.info(request, f"It has ended: {text.status(row.status).lower()}.")
    return _back(row)


def _back(row: Order) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:orders_order_change", args=(row.pk,)))


def _allow(page: ReadOnlyAdmin[Order], request: HttpRequest) -> None:
    if not page.may(request, CANCEL):
        raise PermissionDenied("You may not cancel orders.")
