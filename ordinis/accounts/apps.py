from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "ordinis.accounts"
    verbose_name = "Strategies and tokens"
