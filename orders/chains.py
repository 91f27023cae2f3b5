"""An order with all that replaced it: one order as far as its fills, its dependents and the shares
that it holds are concerned. Reads only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from orders import statuses
from orders.models import Order

# A replacement that never came to be: the order that it was to replace stands.
NEVER_WERE: Final = frozenset({statuses.DENIED, statuses.FAILED, statuses.REJECTED})


@dataclass(frozen=True, slots=True)
class Chain:
    """Orders of one chain, oldest first."""

    orders: Sequence[Order]

    @classmethod
    def of(cls, order_id: UUID) -> "Chain":
        """The chain that an order belongs to."""
        chain = Order.objects.filter(pk=order_id).values("chain")
        return cls(list(Order.objects.filter(chain__in=chain).order_by("created_at")))

    @property
    def filled_qty(self) -> Decimal:
        """A replacement goes on counting where the order that it replaced had come to."""
        return max(order.filled_qty for order in self.orders)

    @property
    def qty(self) -> Decimal:
        return self.last.qty

    @property
    def is_open(self) -> bool:
        """Also while what replaced it is not known yet."""
        replaced = {order.replaces_id for order in self._standing}
        return any(
            order.is_open or (order.status == statuses.REPLACED and order.pk not in replaced)
            for order in self.orders
        )

    @property
    def last(self) -> Order:
        """The one whose report speaks for the whole chain."""
        return max(self._standing, key=lambda order: (order.filled_qty, order.created_at))

    @property
    def moved_at(self) -> datetime:
        return max(order.updated_at for order in self.orders)

    @property
    def _standing(self) -> Sequence[Order]:
        return [o for o in self.orders if o.status not in NEVER_WERE] or self.orders


@dataclass(frozen=True, slots=True)
class Line:
    """What sells the same shares: a chain, or that of a take-profit with that of its stop-loss."""

    chains: Sequence[Chain]

    @property
    def role(self) -> str:
        return self.chains[0].orders[0].role

    @property
    def qty(self) -> Decimal:
        """Shares that it was sent for; a pair's second quantity falls as the first one fills."""
        return max(order.qty for chain in self.chains for order in chain.orders)

    @property
    def held_qty(self) -> Decimal:
        """Shares that it has sold or may still sell."""
        if any(chain.is_open for chain in self.chains):
            return self.qty
        return sum((chain.filled_qty for chain in self.chains), Decimal(0))


def lines(orders: Iterable[Order]) -> list[Line]:
    """Orders by the shares that they sell. Whole chains and whole pairs are expected."""
    chains: dict[UUID, list[Order]] = {}
    heads: dict[UUID, UUID] = {}  # of the legs' chains
    for order in orders:
        chains.setdefault(order.chain, []).append(order)
        if order.leg_of is not None:
            heads[order.chain] = order.leg_of.chain
    found: dict[UUID, list[Chain]] = {}
    for key, members in chains.items():
        found.setdefault(heads.get(key, key), []).append(Chain(members))
    return [Line(chains) for chains in found.values()]
