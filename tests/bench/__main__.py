"""`make bench`: what Ordinis adds, beside the least that any such service must do.

Each floor is measured in the same run. Quote the ratios: absolute times are the machine's.
"""

import logging
import os
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from ordinis.accounts.models import BrokerAccount

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")


def main() -> None:
    django.setup()
    _quiet()
    from django.conf import settings
    from django.test.utils import setup_databases, teardown_databases

    from ordinis.accounts.models import SCOPES, BrokerAccount
    from ordinis.accounts.setup import issue_token
    from tests.bench import adapter, cancels, checks, orders, reconciliation
    from tests.simulator_server import SimulatorServer

    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with SimulatorServer(seed=7) as sim:
            sim.post("/sim/price", {"hold": True})
            settings.BROKER_URL = sim.url
            _, token = issue_token(strategy="bench", account="main", scopes=SCOPES)
            _widen(BrokerAccount.objects.get())
            adapter.measure(sim)
            checks.measure(sim)
            orders.measure_own_time(sim, token)
            orders.measure_end_to_end(sim, token)
            cancels.measure(sim)
        reconciliation.measure()
    finally:
        teardown_databases(databases, verbosity=0)


def _widen(account: "BrokerAccount") -> None:
    """Nothing is denied here, and little used, so that each order is judged once."""
    from risk.limits import change

    wide = {"max_positions": 10_000, "max_position_pct": 600, "max_exposure_pct": 600}
    wide |= {"max_sector_pct": 600, "max_orders_per_minute": 100_000}
    change(account=account, strategy=None, values=wide, reason="Bench.", actor="bench")


def _quiet() -> None:
    """Lines are made as ever, so that their cost is in the figures, but not shown."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115 as long as the process
    for name in ("", *logging.root.manager.loggerDict):
        for handler in logging.getLogger(name).handlers:
            if type(handler) is logging.StreamHandler:
                handler.setStream(nowhere)


if __name__ == "__main__":
    main()
