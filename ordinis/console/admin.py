"""People and groups: Django's own pages, kept from handing out more than the person holds."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, Permission, User
from django.http import HttpRequest

from ordinis.console import daily_reports  # noqa: F401 registers its page
from ordinis.console.groups import all_permissions
from ordinis.console.pages import ConsoleList, person

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
else:
    _UserAdmin = UserAdmin  # takes its type argument only when types are checked

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(_UserAdmin):
    """Nobody is deleted, since the history names them: take away "active" instead. Rights come
    from groups alone."""

    list_display = ("username", "first_name", "last_name", "is_active", "is_staff", "last_login")
    list_filter = ("is_active", "groups")
    show_facets = admin.ShowFacets.NEVER
    actions = None
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("May do", {"fields": ("is_active", "is_staff", "groups", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    filter_horizontal = ()
    empty = "People who may log in appear here."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleList]:
        return ConsoleList

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if "groups" in form.base_fields:
            _as_checkboxes(form.base_fields["groups"])
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only a superuser makes superusers."""
        fixed = ("last_login", "date_joined")
        return fixed if person(request).is_superuser else (*fixed, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is not None and obj.is_superuser and not person(request).is_superuser:
            return False  # whoever sets a password can become that person
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Group)
class ConsoleGroupAdmin(GroupAdmin):
    """Groups hold only permissions that the console asks for."""

    actions = None
    filter_horizontal = ()
    empty = "The console's own groups are made by every migration."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ConsoleList]:
        return ConsoleList

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        field: Any = form.base_fields.get("permissions")
        if field is not None:
            field.queryset = Permission.objects.filter(pk__in=[row.pk for row in all_permissions()])
            field.label_from_instance = lambda permission: permission.name
            _as_checkboxes(field)
        return form


def _as_checkboxes(field: Any) -> None:
    """Plain boxes: they work without scripts, by keyboard and on a small screen."""
    field.widget = forms.CheckboxSelectMultiple(choices=field.choices)
    field.help_text = ""
