"""The console's groups and what each may do. Made again after every migration; only ever adds,
so what an administrator granted beyond them stays.
"""

from collections.abc import Iterable
from typing import Final

from django.apps import apps as all_apps
from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import transaction

_VIEWER: Final = frozenset(
    {
        "accounts.view_brokeraccount",
        "accounts.view_strategy",
        "alerts.view_alert",
        "positions.view_instrument",
        "positions.view_position",
        "positions.view_ledgerentry",
        "orders.view_order",
        "orders.view_orderhistory",
        "orders.view_fill",
        "risk.view_risklimits",
        "reconciliation.view_dailyreport",
        "reconciliation.view_reconciliationreport",
        "reconciliation.view_break",
        "reconciliation.view_correction",
        "reconciliation.view_snapshot",
        "reconciliation.view_rebuild",
    }
)
# To add a report is to compare now.
_OPERATOR: Final = frozenset(
    {
        "alerts.close_alert",
        "alerts.send_test_alert",
        "orders.cancel_order",
        "reconciliation.add_reconciliationreport",
        "reconciliation.propose_correction",
        "reconciliation.work_on_break",
        "risk.halt_trading",
    }
)
_APPROVER: Final = frozenset(
    {
        "reconciliation.decide_correction",
        "reconciliation.rebuild_book",
        "reconciliation.work_on_break",
        "risk.decide_risklimits",
        "risk.flatten_positions",
        "risk.resume_trading",
    }
)
_RISK_MANAGER: Final = frozenset(
    {"positions.change_instrument", "risk.add_risklimits", "risk.decide_risklimits"}
)
_ADMINISTRATOR: Final = frozenset(
    {
        "accounts.add_strategy",
        "accounts.view_apitoken",
        "accounts.add_apitoken",
        "accounts.change_apitoken",
        "alerts.send_test_alert",
        "reconciliation.rebuild_book",
        "auth.view_user",
        "auth.add_user",
        "auth.change_user",
        "auth.view_group",
        "auth.add_group",
        "auth.change_group",
    }
)

GROUPS: Final[dict[str, frozenset[str]]] = {
    "Viewer": _VIEWER,
    "Operator": _VIEWER | _OPERATOR,
    "Approver": _VIEWER | _APPROVER,
    "Risk manager": _VIEWER | _RISK_MANAGER,
    "Administrator": _VIEWER | _ADMINISTRATOR,
}


def ensure_groups(*, using: str = "default", apps: Apps = all_apps) -> None:
    """Makes the groups, and grants each what is missing. Safe to run at any time, twice at once.

    `apps` is the state that a migration has reached; before there are groups nothing is done.
    """
    try:
        apps.get_model("auth", "Group")
    except LookupError:
        return
    for label in sorted({name.partition(".")[0] for names in GROUPS.values() for name in names}):
        # A first migration calls us before the permissions of later apps were made.
        create_permissions(all_apps.get_app_config(label), verbosity=0, using=using, apps=apps)
    with transaction.atomic(using=using):
        for name, permissions in GROUPS.items():
            group, _ = Group.objects.using(using).get_or_create(name=name)
            group.permissions.add(*_rows(permissions, using))


def all_permissions() -> list[Permission]:
    """Every permission that some group of the console holds."""
    return _rows(frozenset().union(*GROUPS.values()), "default")


def _rows(names: Iterable[str], using: str) -> list[Permission]:
    wanted = set(names)
    labels = {name.partition(".")[0] for name in wanted}
    return [
        row
        for row in Permission.objects.using(using)
        .filter(content_type__app_label__in=labels)
        .select_related("content_type")
        if f"{row.content_type.app_label}.{row.codename}" in wanted
    ]
