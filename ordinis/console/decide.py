"""The page on which a correction is decided: GET shows the evidence and a form, POST decides.

Who may decide and what is applied is `reconciliation.corrections`' to say; nothing here books.
"""

from typing import Any, Final, Literal

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse

from ordinis.console import text
from ordinis.console.pages import ReadOnlyAdmin, person
from reconciliation import corrections
from reconciliation.corrections import MayNotDecide, NotDecided
from reconciliation.models import Correction
from reconciliation.queue import LONGEST_COMMENT

_DECISIONS: Final[dict[str, Literal["approve", "reject"]]] = {
    "approve": "approve",
    "reject": "reject",
}


def decide(page: ReadOnlyAdmin[Correction], request: HttpRequest, key: int) -> HttpResponse:
    """403 for who may not; 400 without decision or comment; 409, with the reason, when it was
    decided, expired or overtaken. Only success answers with a redirect."""
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    row = page.find(request, key)
    if not corrections.may_decide(row, person(request)):
        return _not_theirs(page, request, row)
    if request.method != "POST":
        return _form(page, request, row)
    comment = request.POST.get("comment", "").strip()
    decision = _DECISIONS.get(request.POST.get("decision", ""))
    if decision is None:
        return _form(page, request, row, status=400, error="Choose: approve or reject.")
    if not comment:
        return _form(page, request, row, status=400, error="Say why: a comment is required.")
    if len(comment) > LONGEST_COMMENT:
        error = f"A comment has at most {LONGEST_COMMENT} characters."
        return _form(page, request, row, status=400, error=error)
    try:
        decided = corrections.decide(
            row.pk,
            decision,
            user=person(request),
            comment=comment,
            account_name=request.POST.get("account_name", "").strip() or None,
        )
    except MayNotDecide:
        return _not_theirs(page, request, row)
    except ValueError as refused:
        return _form(page, request, row, status=400, error=str(refused))
    except NotDecided as refused:
        return _form(
            page,
            request,
            page.find(request, key),
            status=409,
            refused=str(refused),
            successor=refused.successor,
        )
    outcome = _outcome(decided)
    if decided.problem:
        messages.warning(request, outcome)
    else:
        messages.success(request, outcome)
    return HttpResponseRedirect(
        reverse("admin:reconciliation_correction_change", args=(decided.pk,))
    )


def _not_theirs(
    page: ReadOnlyAdmin[Correction], request: HttpRequest, row: Correction
) -> HttpResponse:
    if row.proposed_by_id != person(request).pk:
        raise PermissionDenied("You may not decide this correction.")
    refused = "You proposed it: somebody else decides it."
    return _form(page, request, row, status=403, refused=refused, deciding=False)


def _form(
    page: ReadOnlyAdmin[Correction],
    request: HttpRequest,
    row: Correction,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    shown = page.page(request, row)
    comment = request.POST.get("comment", "")
    return page.answer(
        request,
        "console/correction.html",
        shown.pop("title"),
        status=status,
        **{
            **shown,
            "row": row,
            "deciding": True,
            "must_type_name": corrections.must_type_name(row, person(request)),
            "comment": comment,
            **context,
        },
    )


def _outcome(decided: Correction) -> str:
    if decided.status != Correction.Status.APPLIED:
        return "Rejected. The book stays as it is, and the break stays open."
    symbol = decided.position.symbol if decided.position else ""
    match decided.kind:
        case Correction.Kind.CASH:
            return f"Approved. Our cash is now {text.money(decided.broker)}, as the broker says."
        case Correction.Kind.AVERAGE_PRICE:
            average = text.price(decided.broker_average_price)
            return f"Approved. Our average price of {symbol} is now {average}, the broker's."
        case Correction.Kind.SPLIT:
            held = text.shares(decided.broker)
            return f"Approved. The split is booked: our book of {symbol} is now {held}."
        case Correction.Kind.TRADE if decided.problem:
            return f"Approved, but the order was not taken: {decided.problem}"
        case Correction.Kind.TRADE:
            return "Approved. The order was sent; its page shows what becomes of it."
        case _:
            held = text.shares(decided.broker)
            return f"Approved. Our book of {symbol} is now {held}, the same as the broker's."
