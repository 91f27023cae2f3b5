"""What venues, clearing houses and other people do to an account, on demand.

Each is something that happens at a real broker without the client asking for it: a transfer, an
execution, an expiry, an unheard-of status, a trade taken back.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ordinis.simulator import refusals, wire
from ordinis.simulator.order import Order
from ordinis.simulator.refusals import Refusal, plain
from ordinis.simulator.request import decimal
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.symbols import Asset

Body = dict[str, Any]


class Interventions:
    """Commands of the control address that touch one order or one position."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def commands(self) -> dict[str, Callable[[Body], object]]:
        return {
            "position": self.position,
            "fill": self.fill,
            "order": self.order,
            "bust": self.bust,
        }

    def position(self, body: Body) -> Body:
        """Put a position in place with no order at all."""
        asset, qty = self._asset(body), decimal(body, "qty")
        if qty is None:
            raise ValueError("qty is needed; 0 removes the position")
        venue = self._runtime.exchange.venue
        average_price = decimal(body, "average_price") or venue.prices[asset.symbol].last
        venue.set_position(asset.symbol, qty, average_price)
        return {
            "symbol": asset.symbol,
            "qty": plain(qty),
            "average_price": plain(average_price),
        }

    def fill(self, body: Body) -> Body:
        """Execute a part or all of an open order at a price of one's choice."""
        order, venue = self._order(body), self._runtime.exchange.venue
        if not order.is_open:
            raise refusals.already(order.status)
        qty, quote = decimal(body, "qty"), venue.prices[order.symbol]
        wanted = order.remaining if qty is None else qty
        if not 0 < wanted <= order.remaining:
            raise ValueError(f"qty must be above 0 and at most {plain(order.remaining)}")
        price = decimal(body, "price") or (quote.ask if order.side == "buy" else quote.bid)
        execution_id = self._runtime.exchange.steps.fill(order, wanted, price)
        return {"execution_id": execution_id, **wire.order(order)}

    def order(self, body: Body) -> Body:
        """Give an order any status, known or not, as a venue does by itself."""
        order, status = self._order(body), str(body["status"])
        event = str(body.get("event") or status)
        self._runtime.exchange.venue.move(order, status, event)
        return wire.order(order)

    def bust(self, body: Body) -> Body:
        """Take an execution back, or correct its price where one is given."""
        execution_id = str(body["execution_id"])
        venue, price = self._runtime.exchange.venue, decimal(body, "price")
        for activity in venue.activities:
            if activity["id"].endswith(f"::{execution_id}"):
                order = venue.book[activity["order_id"]]
                qty, old = Decimal(activity["qty"]), Decimal(activity["price"])
                venue.take_back(order, execution_id, qty=qty, price=old, corrected=price)
                return wire.order(order)
        raise Refusal(404, 40410000, f"execution not found for {execution_id}")

    def _asset(self, body: Body) -> Asset:
        symbol = str(body.get("symbol", ""))
        asset = self._runtime.exchange.venue.listing.get(symbol)
        if asset is None:
            raise refusals.asset_not_found(symbol)
        return asset

    def _order(self, body: Body) -> Order:
        if "id" in body:
            return self._runtime.exchange.find(str(body["id"]))
        return self._runtime.exchange.find_by_client_id(str(body["client_order_id"]))
