"""What venues, clearing houses and other people do to an account, on demand.

Each is something that happens at a real broker without the client asking for it: a transfer, an
execution, an expiry, an unheard-of status, a trade taken back, a split, a dividend, a fee.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from ordinis.simulator import corporate, refusals, wire
from ordinis.simulator.activities import NON_TRADE
from ordinis.simulator.order import Order
from ordinis.simulator.refusals import Refusal, plain
from ordinis.simulator.request import decimal
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import Venue

Body = dict[str, Any]


class Interventions:
    """Commands of the control address that touch one order, one position or the cash."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def commands(self) -> dict[str, Callable[[Body], object]]:
        return {
            "position": self.position,
            "fill": self.fill,
            "order": self.order,
            "bust": self.bust,
            "split": self.split,
            "dividend": self.dividend,
            "activity": self.activity,
        }

    @property
    def _venue(self) -> Venue:
        return self._runtime.exchange.venue

    def position(self, body: Body) -> Body:
        """Put a position in place with no order at all."""
        asset, qty = self._asset(body), decimal(body, "qty")
        if qty is None:
            raise ValueError("qty is needed; 0 removes the position")
        average_price = decimal(body, "average_price") or self._venue.prices[asset.symbol].last
        self._venue.set_position(asset.symbol, qty, average_price)
        return {
            "symbol": asset.symbol,
            "qty": plain(qty),
            "average_price": plain(average_price),
        }

    def fill(self, body: Body) -> Body:
        """Execute a part or all of an order at a price of one's choice; `late` after its end."""
        order = self._order(body)
        if order.status == "filled" or not (order.is_open or body.get("late") is True):
            raise refusals.already(order.status)
        qty, quote = decimal(body, "qty"), self._venue.prices[order.symbol]
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
        self._venue.move(order, status, event)
        self._runtime.exchange.steps.follow(order)
        return wire.order(order)

    def bust(self, body: Body) -> Body:
        """Take an execution back, or correct its price where one is given."""
        execution_id, price = str(body["execution_id"]), decimal(body, "price")
        row = self._venue.activities.execution(execution_id)
        if row is None:
            raise Refusal(404, 40410000, f"execution not found for {execution_id}")
        order = self._venue.book[row["order_id"]]
        if execution_id in order.busted:
            raise refusals.invalid(f"execution {execution_id} was taken back already")
        self._runtime.exchange.steps.bust(order, execution_id, price)
        return wire.order(order)

    def split(self, body: Body) -> Body:
        """So many new shares for each old one: position, prices and open orders."""
        asset = self._asset(body)
        new, old = decimal(body, "new_rate"), decimal(body, "old_rate")
        if new is None or old is None or new <= 0 or old <= 0 or new == old:
            raise ValueError("new_rate and old_rate are needed, above 0 and different")
        return {"activity": corporate.split(self._venue, asset.symbol, new=new, old=old)}

    def dividend(self, body: Body) -> Body:
        asset, per_share = self._asset(body), decimal(body, "per_share")
        if per_share is None or per_share <= 0:
            raise ValueError("per_share is needed, above 0")
        return {"activity": corporate.pay_dividend(self._venue, asset.symbol, per_share)}

    def activity(self, body: Body) -> Body:
        """Money that comes or goes: a deposit, a fee, interest, a journal entry."""
        kind, net_amount = str(body["activity_type"]), decimal(body, "net_amount")
        if kind not in NON_TRADE:
            raise ValueError(f"activity_type is one of {', '.join(sorted(NON_TRADE))}")
        row = corporate.book(
            self._venue,
            kind,
            sub_kind=str(body.get("activity_sub_type") or ""),
            net_amount=Decimal(0) if net_amount is None else net_amount,
            symbol=self._asset(body).symbol if body.get("symbol") else None,
            qty=decimal(body, "qty"),
            description=str(body.get("description") or ""),
        )
        return {"activity": row}

    def _asset(self, body: Body) -> Asset:
        symbol = str(body.get("symbol", ""))
        asset = self._venue.listing.get(symbol)
        if asset is None:
            raise refusals.asset_not_found(symbol)
        return asset

    def _order(self, body: Body) -> Order:
        if "id" in body:
            return self._runtime.exchange.find(str(body["id"]))
        return self._runtime.exchange.find_by_client_id(str(body["client_order_id"]))
