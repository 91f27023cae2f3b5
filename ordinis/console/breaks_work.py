"""What people do with breaks from the console: assign, comment, acknowledge, resolve, propose,
restore by a trade, adopt. Parses, calls one function, answers: what follows is
`reconciliation.queue`'s, `corrections`', `trades`' and `adoption`'s to say.
"""

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from ordinis.broker.errors import BrokerError
from ordinis.console.pages import ReadOnlyAdmin, person
from reconciliation import adoption, corrections, proposals, queue, trades
from reconciliation.models import OF_POSITIONS, Break, Correction, Kind
from reconciliation.queue import NotDone
from risk import figures

WORK, PROPOSE = "work_on_break", "propose_correction"
# Of these a trade can bring the shares back.
TRADED_BACK: Final = OF_POSITIONS - {Kind.AVERAGE_PRICE, Kind.SPLIT}
# Of these a correction of the book can be proposed.
CORRECTED: Final = OF_POSITIONS | {Kind.CASH}

Page = ReadOnlyAdmin[Break]


def address(row: Break | Correction) -> str:
    return reverse(f"admin:reconciliation_{row._meta.model_name}_change", args=(row.pk,))


def who_decides(proposer: User) -> str:
    """Who may decide what this person proposes."""
    if corrections.may_decide(Correction(proposed_by=proposer), proposer):
        return "Nobody else may decide it: you can, by typing the account's name."
    return "Somebody else decides it."


def many(page: Page, request: HttpRequest) -> HttpResponse:
    """Several breaks at once: assigned or acknowledged, never decided."""
    _allow(page, request, WORK)
    ids = [int(key) for key in request.POST.getlist("break") if key.isdecimal() and len(key) < 19]
    try:
        if not ids:
            raise NotDone("Choose the breaks first: tick the boxes in front of them.")
        messages.success(request, _done(request, ids))
    except NotDone as error:
        messages.error(request, str(error))
    back = request.POST.get("back", "")
    here = reverse("admin:reconciliation_break_changelist")
    return HttpResponseRedirect(here + (back if back.startswith("?") else ""))


def _done(request: HttpRequest, ids: list[int]) -> str:
    by = person(request)
    match request.POST.get("do"):
        case "acknowledge":
            count = queue.acknowledge(ids, by=by, comment=request.POST.get("comment", ""))
            return f"{_breaks(count)} acknowledged.{_others(ids, count)}"
        case "mine":
            count = queue.assign(ids, to=by, by=by)
            return f"{_breaks(count)} assigned to you.{_others(ids, count)}"
        case "assign":
            to = _chosen(request)
            count = queue.assign(ids, to=to, by=by)
            return f"{_breaks(count)} assigned to {to or 'nobody'}.{_others(ids, count)}"
        case _:
            raise NotDone("Choose what to do: assign or acknowledge.")


def _breaks(count: int) -> str:
    return f"{count} break{'' if count == 1 else 's'}"


def _others(ids: list[int], count: int) -> str:
    left = len(set(ids)) - count
    return f" {_breaks(left)} stood so already, or had ended." if left > 0 else ""


def _chosen(request: HttpRequest) -> User | None:
    key = request.POST.get("to", "")
    if key == "nobody":
        return None
    if not key:
        raise NotDone("Choose the person who is to have it, or nobody.")
    found = User.objects.filter(pk=int(key)).first() if key.isdecimal() else None
    if found is None:
        raise NotDone("There is no such person any more; choose another.")
    return found


def comment(page: Page, request: HttpRequest, row: Break) -> str:
    queue.comment(row, request.POST.get("comment", ""), by=person(request))
    return "Your comment is in the history."


def assign(page: Page, request: HttpRequest, row: Break) -> str:
    by = person(request)
    to = by if request.POST.get("do") == "mine" else _chosen(request)
    changed = queue.assign([row.pk], to=to, by=by)
    if not changed:
        return "Nothing changed: it stood so already, or has ended."
    return f"Assigned to {'you' if to == by else to or 'nobody'}."


def acknowledge(page: Page, request: HttpRequest, row: Break) -> str:
    said = request.POST.get("comment", "")
    changed = queue.acknowledge([row.pk], by=person(request), comment=said)
    if not changed:
        raise NotDone("It was acknowledged already, or has ended; nothing changed.")
    return "Acknowledged. It has its time anew before it escalates."


def resolve(page: Page, request: HttpRequest, row: Break) -> str:
    queue.resolve(row, by=person(request), comment=request.POST.get("comment", ""))
    return "Resolved, with your comment."


def propose(page: Page, request: HttpRequest, row: Break) -> HttpResponse:
    """Reads the broker anew and proposes to bring the book to it."""
    back = HttpResponseRedirect(address(row))
    if row.ended_at is not None:
        messages.warning(request, "This break has ended; there is nothing to correct.")
        return back
    if row.kind not in CORRECTED:
        raise NotDone("Nothing in our book corrects a break of this kind.")
    reason = request.POST.get("comment", "").strip()[: queue.LONGEST_COMMENT]
    try:
        facts = figures.ask(row.account)
        made = proposals.propose(row, facts, by=person(request), reason=reason)
    except BrokerError as error:
        messages.error(request, f"The broker could not be read, nothing was proposed: {error}")
        return back
    if made is None:
        messages.warning(
            request, "Nothing was proposed: both sides agree now, or a proposal waits already."
        )
        return back
    messages.success(request, f"Proposed. {who_decides(person(request))}")
    return HttpResponseRedirect(address(made))


def adopt(page: Page, request: HttpRequest, row: Break) -> HttpResponse:
    """Makes an external order one of ours."""
    try:
        order = adoption.adopt(row, by=person(request), reason=_reason(request))
    except adoption.NotAdopted as error:
        raise NotDone(str(error)) from error
    messages.success(
        request, "Adopted: it counts as an order of ours from now on, and can be cancelled here."
    )
    return HttpResponseRedirect(reverse("admin:orders_order_change", args=(order.pk,)))


def restore(page: Page, request: HttpRequest, row: Break) -> HttpResponse:
    """GET shows the order that would bring the shares back; POST proposes it. Sends nothing."""
    _allow(page, request, PROPOSE)
    if row.kind not in TRADED_BACK:
        raise Http404("No trade restores a break of this kind.")
    status, error, plan = 200, "", None
    try:
        if request.method == "POST":
            made = trades.propose(row, by=person(request), reason=_reason(request))
            who = who_decides(person(request))
            messages.success(request, f"Proposed. Nothing is sent before it is approved. {who}")
            return HttpResponseRedirect(address(made))
    except NotDone as refused:
        status, error = 400, str(refused)
    except trades.NotProposed as refused:
        status, error = 409, str(refused)
    except BrokerError as refused:
        status, error = 503, f"The broker could not be read, nothing was proposed: {refused}"
    try:
        plan = trades.preview(row)
    except BrokerError as refused:
        status, error = 503, f"The broker could not be read: {refused} Try again in a moment."
    return page.answer(
        request,
        "console/break_restore.html",
        f"Restore {row.symbol} by a trade",
        status=status,
        row=row,
        plan=plan,
        error=error,
        who_decides=who_decides(person(request)),
        comment=request.POST.get("comment", ""),
    )


# By the last part of the address: what is needed, and what is done.
_ACTIONS: Final[dict[str, tuple[str, Callable[[Page, HttpRequest, Break], str | HttpResponse]]]] = {
    "comment": (WORK, comment),
    "assign": (WORK, assign),
    "acknowledge": (WORK, acknowledge),
    "resolve": (WORK, resolve),
    "propose": (PROPOSE, propose),
    "adopt": (PROPOSE, adopt),
}
ACTIONS: Final = tuple(_ACTIONS)


def act(
    page: Page,
    request: HttpRequest,
    row: Break,
    action: str,
    again: Callable[..., HttpResponse],
) -> HttpResponse:
    """One thing done with one break. What was refused answers 400 with the page, its reason and
    what was typed (`again`); only success answers with a redirect."""
    needed, do = _ACTIONS[action]
    _allow(page, request, needed)
    try:
        answer = do(page, request, row)
    except NotDone as error:
        given: dict[str, Any] = {"failed": action, "error": str(error)}
        return again(status=400, comment=request.POST.get("comment", ""), **given)
    if isinstance(answer, HttpResponse):
        return answer
    messages.success(request, answer)
    return HttpResponseRedirect(address(row))


def _allow(page: Page, request: HttpRequest, permission: str) -> None:
    if not (page.has_view_permission(request) and page.may(request, permission)):
        raise PermissionDenied


def _reason(request: HttpRequest) -> str:
    reason = request.POST.get("comment", "").strip()
    if not reason:
        raise NotDone("Say why: a comment is required.")
    if len(reason) > queue.LONGEST_COMMENT:
        raise NotDone(f"A comment has at most {queue.LONGEST_COMMENT} characters.")
    return reason
