from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PositionsConfig(AppConfig):
    name = "positions"
    verbose_name = "Positions"

    def ready(self) -> None:
        post_migrate.connect(_load_seed, sender=self)


def _load_seed(**_: Any) -> None:
    from positions import seed

    seed.load()
