from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class ConsoleConfig(AppConfig):
    name = "ordinis.console"
    verbose_name = "Console"
    default = True


class ConsoleAdminConfig(admin_apps.AdminConfig):
    """Django's admin app, with our site in the place of its default one."""

    default = False
    default_site = "ordinis.console.site.ConsoleSite"
