"""All addresses: the API, health, and the console at the root."""

from django.contrib import admin
from django.urls import path, re_path

from ordinis import health, metrics
from ordinis.api import api, no_such_address

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics),
    path("api/v1/", api.urls),
    # Else the console would answer, with a login page or a complaint about a form.
    re_path(r"^api/", no_such_address),
    path("", admin.site.urls),
]
