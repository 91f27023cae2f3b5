"""Every order there ever was, found by id, by client id, by symbol, or by the list request.

Keeps indexes, changes no order. Orders are never removed: a client_order_id is spent for ever.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ordinis.simulator import refusals
from ordinis.simulator.order import Order


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """The filters of the list request; moments and cursors are exclusive."""

    status: str = "open"
    limit: int = 50
    ascending: bool = False
    after: int | None = None
    until: int | None = None
    symbols: frozenset[str] = frozenset()
    side: str | None = None
    before_order_id: str | None = None
    after_order_id: str | None = None
    nested: bool = False

    def takes(self, order: Order) -> bool:
        if self.status != "all" and order.is_open != (self.status == "open"):
            return False
        if self.symbols and order.symbol not in self.symbols:
            return False
        if self.side and order.side != self.side:
            return False
        if self.nested and order.parent:
            return False
        if self.after is not None and order.submitted_at <= self.after:
            return False
        return self.until is None or order.submitted_at < self.until


class Book:
    """The orders of one account."""

    def __init__(self) -> None:
        self._in_sequence: list[Order] = []
        self._by_id: dict[str, Order] = {}
        self._by_client_id: dict[str, Order] = {}
        # By symbol and side: nothing that an order is checked against lies elsewhere.
        self._open: dict[tuple[str, str], dict[str, Order]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._in_sequence)

    def __iter__(self) -> Iterator[Order]:
        return iter(self._in_sequence)

    def __getitem__(self, order_id: str) -> Order:
        return self._by_id[order_id]

    def get(self, order_id: str) -> Order | None:
        return self._by_id.get(order_id)

    def by_client_id(self, client_order_id: str) -> Order | None:
        return self._by_client_id.get(client_order_id)

    def add(self, order: Order) -> None:
        self._in_sequence.append(order)
        self._by_id[order.id] = order
        self._by_client_id[order.client_order_id] = order
        self.sort(order)

    def sort(self, order: Order) -> None:
        """Bring the index of open orders up to date after the order's status changed."""
        orders = self._open[order.symbol, order.side]
        if order.is_open:
            orders[order.id] = order
        else:
            orders.pop(order.id, None)

    def open(self, symbol: str | None = None, side: str | None = None) -> list[Order]:
        """Oldest first within a symbol and side."""
        if symbol is not None:
            sides = ("buy", "sell") if side is None else (side,)
            found = [self._open[symbol, it] for it in sides if (symbol, it) in self._open]
        else:
            found = list(self._open.values())
        return [order for orders in found for order in orders.values()]

    def select(self, query: OrderQuery) -> list[Order]:
        """Raises Refusal for a cursor that names no order."""
        first, end = 0, len(self._in_sequence)
        if query.after_order_id:
            first = self._cursor(query.after_order_id) + 1
        if query.before_order_id:
            end = self._cursor(query.before_order_id)
        candidates: Iterable[Order]
        if query.status == "open":
            candidates = sorted(
                (order for order in self.open() if first <= order.sequence < end),
                key=lambda order: order.sequence,
                reverse=not query.ascending,
            )
        else:
            indexes = range(first, end) if query.ascending else range(end - 1, first - 1, -1)
            candidates = (self._in_sequence[index] for index in indexes)
        found: list[Order] = []
        for order in candidates:
            if query.takes(order):
                found.append(order)
                if len(found) == query.limit:
                    break
        return found

    def _cursor(self, order_id: str) -> int:
        order = self._by_id.get(order_id)
        if order is None:
            raise refusals.invalid(f"invalid order id cursor: {order_id}")
        return order.sequence
