"""All addresses: the API, health, and the console at the root."""

from django.contrib import admin
from django.urls import path

from ordinis import health, metrics
from ordinis.api import api

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.metrics),
    path("api/v1/", api.urls),
    path("", admin.site.urls),
]
