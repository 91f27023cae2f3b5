"""Sets the console up: its site in the place of Django's, its pages, its groups."""

from importlib import import_module
from typing import Any

from django.apps import AppConfig
from django.apps import apps as registry
from django.apps.registry import Apps
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate

# Named, not discovered: packages bring admin pages of their own that have no use here.
_PAGES = (
    "ordinis.console",
    "ordinis.accounts",
    "ordinis.alerts",
    "positions",
    "risk",
    "orders",
    "reconciliation",
)


class ConsoleConfig(AppConfig):
    name = "ordinis.console"
    verbose_name = "Console"
    default = True

    def ready(self) -> None:
        # On behalf of the app that has the groups: one without models is told of no migration.
        post_migrate.connect(
            _make_groups,
            sender=registry.get_app_config("auth"),
            dispatch_uid="ordinis.console.groups",
        )


class ConsoleAdminConfig(admin_apps.SimpleAdminConfig):
    """Django's admin app, with our site in the place of its default one."""

    default = False
    default_site = "ordinis.console.site.ConsoleSite"

    def ready(self) -> None:
        super().ready()
        for app in _PAGES:
            import_module(f"{app}.admin")


def _make_groups(*, using: str, apps: Apps = registry, **_: Any) -> None:
    from ordinis.console.groups import ensure_groups

    ensure_groups(using=using, apps=apps)
