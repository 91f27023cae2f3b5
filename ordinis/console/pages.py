"""What every model page of the console shares: reading without changing, pages without counting.

Rules live in the apps; a page that is not a form shows and never saves.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, cast

from django.contrib import admin
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, ChangeList
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils.functional import cached_property
from django.utils.text import capfirst

_M = TypeVar("_M", bound=Model)

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[_M]
    _Paginator = Paginator[_M]
else:

    class _Subscriptable:
        """Django's classes take their type argument only when types are checked."""

        def __init__(self, plain: type) -> None:
            self._plain = plain

        def __getitem__(self, _item: object) -> type:
            return self._plain

    _ModelAdmin, _Paginator = _Subscriptable(admin.ModelAdmin), _Subscriptable(Paginator)


def person(request: HttpRequest) -> User:
    """Who is logged in. Only called behind the login."""
    return cast(User, request.user)


class Uncounted(_Paginator[_M], Generic[_M]):
    """Pages of a table of any length: looks one row ahead instead of counting them all."""

    number = 1

    @cached_property
    def count(self) -> int:
        """Rows known so far: all pages up to this one, and one more where a next page exists."""
        before = (self.number - 1) * self.per_page
        rows = cast("QuerySet[_M]", self.object_list)
        return before + len(rows.values_list("pk", flat=True)[before : before + self.per_page + 1])


class ConsoleList(ChangeList):
    """A list with the model's name as its heading, and what it says when it is empty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = capfirst(str(self.opts.verbose_name_plural))
        self.empty = getattr(self.model_admin, "empty", "Nothing yet.")

    def get_ordering_field_columns(self) -> dict[int, Literal["desc", "asc"]]:
        """Marks a column as sorted only when somebody sorted by it: our own order may rest on
        more than columns."""
        if ORDER_VAR not in self.params:
            return {}
        return super().get_ordering_field_columns()


class ConsoleAdmin(_ModelAdmin[_M], Generic[_M]):
    """Lists in the console's manner."""

    actions = None
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    # What will appear on an empty page, and when.
    empty: ClassVar[str] = "Nothing yet."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ConsoleList

    def get_paginator(
        self,
        request: HttpRequest,
        queryset: Any,
        per_page: int,
        orphans: int = 0,
        allow_empty_first_page: bool = True,
    ) -> Uncounted[_M]:
        pages: Uncounted[_M] = Uncounted(queryset, per_page, orphans, allow_empty_first_page)
        text = request.GET.get(PAGE_VAR, "1")
        # Deeper than this the database would walk for seconds: filter instead.
        pages.number = min(int(text), 10_000) if text.isdecimal() and int(text) else 1
        return pages

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Whether the person has a permission of this app, by its short name."""
        return person(request).has_perm(f"{self.opts.app_label}.{permission}")

    def answer(
        self,
        request: HttpRequest,
        template: str,
        title: str,
        *,
        status: int = 200,
        **context: Any,
    ) -> HttpResponse:
        """A page in the console's frame."""
        frame = self.admin_site.each_context(request)
        return TemplateResponse(
            request,
            template,
            {**frame, "opts": self.opts, "title": title, **context},
            status=status,
        )

    def find(self, request: HttpRequest, key: str | int) -> _M:
        """The row of this key, for someone who may see it. Raises Http404, PermissionDenied."""
        row = self.get_object(request, str(key))
        if row is None:
            raise Http404(f"No {self.opts.verbose_name} has the key {key}.")
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        return row


class ReadOnlyAdmin(ConsoleAdmin[_M]):
    """A model that is shown and never edited here."""

    page_template: ClassVar[str] = "console/record.html"
    # The fields that a plain page shows, for models without a template of their own.
    page_fields: ClassVar[tuple[str, ...]] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: _M | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: _M | None = None) -> bool:
        return False

    def page(self, request: HttpRequest, row: _M) -> dict[str, Any]:
        """What the page of one row shows besides the row."""
        shown = []
        for name in self.page_fields:
            field = self.opts.get_field(name)
            words = getattr(row, f"get_{name}_display", None)
            value = words() if words else getattr(row, name)
            shown.append((capfirst(str(getattr(field, "verbose_name", name))), value))
        return {"fields": shown}

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        row = self.find(request, object_id)
        context = {"title": str(row), **self.page(request, row), **(extra_context or {})}
        return self.answer(request, self.page_template, context.pop("title"), row=row, **context)
