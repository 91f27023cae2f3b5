from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "ordinis.alerts"
    verbose_name = "Alerts"
