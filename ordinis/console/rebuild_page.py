"""The emergency rebuild: its page, which shows every change before anything is done, and the list
of those that were made. What may follow is `reconciliation.rebuild`'s to say. No GET changes
anything.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods

from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.console import text
from ordinis.console.filters import AccountFilter
from ordinis.console.pages import ReadOnlyAdmin, person
from ordinis.console.templatetags.console import moment
from reconciliation import rebuild
from reconciliation.models import Rebuild
from reconciliation.queue import LONGEST_COMMENT

# More changes than this are counted, not listed, on the page; all are made.
SHOWN = 500


class RebuildAdmin(ReadOnlyAdmin[Rebuild]):
    list_display = ("made", "account", "actor", "count", "cash", "reason")
    list_select_related = ("account",)
    list_filter = (AccountFilter,)
    sortable_by = ()
    change_list_template = "console/rebuilds.html"
    page_template = "console/rebuilt.html"
    empty = "No book was ever rebuilt."

    def get_urls(self) -> list[URLPattern]:
        form = require_http_methods(["GET", "HEAD", "POST"])
        view = self.admin_site.admin_view(form(self.now))
        return [path("now/", view, name="reconciliation_rebuild"), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"may_rebuild": self.may(request, "rebuild_book")}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    @admin.display(description="made")
    def made(self, row: Rebuild) -> SafeString:
        return moment(row.at)

    @admin.display(description="symbols changed")
    def count(self, row: Rebuild) -> int:
        return len(row.changes)

    @admin.display(description="cash")
    def cash(self, row: Rebuild) -> str:
        if row.cash_before is None or row.cash_after is None:
            return text.NONE
        return text.signed_money(row.cash_after - row.cash_before)

    def page(self, request: HttpRequest, row: Rebuild) -> dict[str, Any]:
        return {"title": f"Rebuild {row.pk} of {row.account}", "cash": self.cash(row)}

    def now(self, request: HttpRequest) -> HttpResponse:
        """GET shows what would change; POST, with the account's name and a reason, does it."""
        if not self.may(request, "rebuild_book"):
            raise PermissionDenied
        accounts = list(BrokerAccount.objects.all())
        account = _chosen(request, accounts)
        if account is None:
            return self.answer(
                request, "console/rebuild.html", "Emergency rebuild", accounts=accounts
            )
        if request.method != "POST":
            return self._form(request, account)
        reason = request.POST.get("reason", "").strip()
        if len(reason) > LONGEST_COMMENT:
            error = f"A reason has at most {LONGEST_COMMENT} characters."
            return self._form(request, account, status=400, error=error)
        try:
            row = rebuild.rebuild(
                account,
                typed=request.POST.get("name", "").strip(),
                actor=person(request).get_username(),
                reason=reason,
            )
        except rebuild.NotRebuilt as refused:
            return self._form(request, account, status=409, error=str(refused))
        messages.success(
            request,
            f"The book of {account} was rebuilt from the broker. Trading stays halted until "
            "somebody resumes it.",
        )
        return HttpResponseRedirect(reverse("admin:reconciliation_rebuild_change", args=(row.pk,)))

    def _form(
        self, request: HttpRequest, account: BrokerAccount, *, status: int = 200, error: str = ""
    ) -> HttpResponse:
        plan: rebuild.Plan | None = None
        try:
            plan = rebuild.preview(account)
        except BrokerError as refused:
            error = error or f"The broker could not be read: {refused} Try again in a moment."
            status = status if status != 200 else 503
        changes = plan.changes if plan else ()
        return self.answer(
            request,
            "console/rebuild.html",
            f"Rebuild the book of {account}",
            status=status,
            account=account,
            plan=plan,
            changes=changes[:SHOWN],
            more=max(len(changes) - SHOWN, 0),
            cash_differs=plan is not None and plan.cash_before != plan.cash_after,
            error=error,
            reason=request.POST.get("reason", ""),
        )


def _chosen(request: HttpRequest, accounts: list[BrokerAccount]) -> BrokerAccount | None:
    given = request.POST if request.method == "POST" else request.GET
    key = given.get("account", "")
    if not key:
        return accounts[0] if len(accounts) == 1 and request.method != "POST" else None
    for account in accounts:
        if f"{account.pk}" == key:
            return account
    raise Http404("There is no such account.")
