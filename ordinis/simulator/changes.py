"""What a command or a step has changed, collected until it is stored.

Names what is different, holds no copies: it must be stored before anything else happens.
"""

from dataclasses import dataclass, field

from ordinis.simulator.order import Order
from ordinis.simulator.wire import Json


@dataclass(slots=True)
class Changes:
    """What must be stored before anybody is told."""

    orders: dict[str, Order] = field(default_factory=dict)
    positions: set[str] = field(default_factory=set)
    activities: list[Json] = field(default_factory=list)
    account: bool = False
    prices: bool = False
    settings: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.orders
            or self.positions
            or self.activities
            or self.account
            or self.prices
            or self.settings
        )
