"""A desk whose limits are out of the way, for tests of what becomes of orders: lost answers,
crashes and bad days would open the breaker, and then nothing more would be sent.
"""

from datetime import timedelta
from typing import Final

from ordinis.accounts.models import BrokerAccount
from risk import trading
from risk.figures import database_now
from risk.limits import change

WIDE: Final = {
    "max_positions": 1000,
    "max_position_pct": 600,
    "max_exposure_pct": 600,
    "max_sector_pct": 600,
    "max_orders_per_minute": 100_000,
    "breaker_error_rate_pct": 100,
    "breaker_consecutive_failures": 1000,
    "breaker_min_buying_power": 0,
}


def widen(account: BrokerAccount) -> None:
    """Positions, exposure, rates and the breaker are limited as little as may be."""
    change(account=account, strategy=None, values=WIDE, reason="Not what is tested.", actor="test")


def let_all_pass(account: BrokerAccount) -> None:
    """And the breaker stays out of it, also after a refusal for funds."""
    widen(account)
    until = database_now() + timedelta(hours=4)
    trading.override(account.pk, until=until, reason="Not what is tested.", actor="test")
