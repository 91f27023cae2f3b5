"""The admin site that is the console."""

from django.contrib.admin import AdminSite


class ConsoleSite(AdminSite):
    site_header = "Ordinis"
    site_title = "Ordinis"
    index_title = "Today"
