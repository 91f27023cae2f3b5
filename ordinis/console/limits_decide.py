"""The page on which a version of the limits that waits is decided: GET shows it and a form, POST
decides. Who may decide, and whether it still stands, is `risk.limits`' to say.
"""

from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse

from ordinis.console.pages import ReadOnlyAdmin, person
from risk.limits import Decision, MayNotDecide, NotDecided, decide, may_decide
from risk.models import RiskLimits

_DECISIONS: Final[dict[str, Decision]] = {"approve": "approve", "reject": "reject"}


def decide_limits(page: ReadOnlyAdmin[RiskLimits], request: HttpRequest, key: int) -> HttpResponse:
    """403 for who may not; 400 without decision or comment; 409, with the reason, when it was
    decided, has ended or was overtaken. Only success answers with a redirect."""
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    row = page.find(request, key)
    if not may_decide(row, person(request)):
        raise PermissionDenied("You may not decide this version.")
    if request.method != "POST":
        return _form(page, request, row)
    comment = request.POST.get("comment", "").strip()
    decision = _DECISIONS.get(request.POST.get("decision", ""))
    if decision is None:
        return _form(page, request, row, status=400, error="Choose: approve or reject.")
    if not comment:
        return _form(page, request, row, status=400, error="Say why: a comment is required.")
    try:
        decided = decide(row.pk, decision, user=person(request), comment=comment)
    except MayNotDecide as error:
        raise PermissionDenied(str(error)) from error
    except NotDecided as error:
        again = page.find(request, key)
        return _form(page, request, again, status=409, refused=str(error))
    approved = decided.status == RiskLimits.Status.APPROVED
    messages.success(
        request,
        f"Approved. Version {decided.version} holds from its start on."
        if approved
        else f"Rejected. Version {decided.version} never holds; the limits stay as they are.",
    )
    return HttpResponseRedirect(reverse("admin:risk_risklimits_change", args=(decided.pk,)))


def _form(
    page: ReadOnlyAdmin[RiskLimits],
    request: HttpRequest,
    row: RiskLimits,
    *,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    return page.answer(
        request,
        "console/limits_version.html",
        f"Decide {row}",
        status=status,
        row=row,
        deciding=True,
        comment=request.POST.get("comment", ""),
        **page.page(request, row),
        **context,
    )
