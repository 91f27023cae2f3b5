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
        raise PermissionDenied("You may not decide this correction.")
    if request.method != "POST":
        return _form(page, request, row)
    comment = request.POST.get("comment", "").strip()
    decision = _DECISIONS.get(request.POST.get("decision", ""))
    if decision is None:
        return _form(page, request, row, status=400, error="Choose: approve or reject.")
    if not comment:
        return _form(page, request, row, status=400, error="Say why: a comment is required.")
    try:
        decided = corrections.decide(row.pk, decision, user=person(request), comment=comment)
    except MayNotDecide as error:
        raise PermissionDenied(str(error)) from error
    except NotDecided as error:
        return _form(
            page,
            request,
            page.find(request, key),
            status=409,
            refused=str(error),
            successor=error.successor,
        )
    messages.success(request, _outcome(decided))
    return HttpResponseRedirect(
        reverse("admin:reconciliation_correction_change", args=(decided.pk,))
    )


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
        **{**shown, "row": row, "deciding": True, "comment": comment, **context},
    )


def _outcome(decided: Correction) -> str:
    if decided.status != Correction.Status.APPLIED:
        return "Rejected. The book stays as it is, and the break stays open."
    symbol, held = decided.position.symbol, text.shares(decided.broker_qty)
    return f"Approved. Our book of {symbol} is now {held}, the same as the broker's."
