from django.apps import AppConfig


class OrdinisConfig(AppConfig):
    name = "ordinis"
    verbose_name = "Ordinis"
