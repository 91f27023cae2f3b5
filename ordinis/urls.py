"""All addresses: the API, health, and the console at the root."""

from django.contrib import admin
from django.urls import path

from ordinis import health
from ordinis.api import api

urlpatterns = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("api/v1/", api.urls),
    path("", admin.site.urls),
]
