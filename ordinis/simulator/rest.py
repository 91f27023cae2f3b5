"""Alpaca's REST addresses for orders and positions: parse, one call of the exchange, answer.

Holds no rules of trading. Every change is stored before its answer is made.
"""

from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from ordinis.simulator import holding, moments, refusals, wire
from ordinis.simulator.book import OrderQuery
from ordinis.simulator.mangle import answer
from ordinis.simulator.order import Order, is_open
from ordinis.simulator.portfolio import Position
from ordinis.simulator.query import LAG, choice, moment, whole_number, yes
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.request import decimal, json_body, parse_order, parse_replace
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.venue import Venue


def order_query(query: Mapping[str, str]) -> OrderQuery:
    before, after = query.get("before_order_id"), query.get("after_order_id")
    timed = query.get("after") or query.get("until")
    if (before and after) or ((before or after) and timed):
        raise refusals.invalid("order id cursors cannot be combined with each other or with time")
    symbols = query.get("symbols", "")
    return OrderQuery(
        status=choice(query, "status", "open", "closed", "all"),
        limit=whole_number(query, "limit", default=50, most=500),
        ascending=choice(query, "direction", "desc", "asc") == "asc",
        after=moment(query, "after"),
        until=moment(query, "until"),
        symbols=frozenset(part.strip().upper() for part in symbols.split(",") if part.strip()),
        side=query.get("side") or None,
        before_order_id=before,
        after_order_id=after,
        nested=yes(query, "nested"),
    )


class Trading:
    """Orders and positions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v2/orders", self.submit),
            web.get("/v2/orders", self.list_orders),
            web.delete("/v2/orders", self.cancel_all),
            web.get("/v2/orders:by_client_order_id", self.get_by_client_id),
            web.get("/v2/orders/{order_id}", self.get_order),
            web.patch("/v2/orders/{order_id}", self.replace),
            web.delete("/v2/orders/{order_id}", self.cancel),
            web.get("/v2/positions", self.list_positions),
            web.delete("/v2/positions", self.close_all),
            web.get("/v2/positions/{symbol}", self.get_position),
            web.delete("/v2/positions/{symbol}", self.close),
        ]

    @property
    def _venue(self) -> Venue:
        return self._runtime.exchange.venue

    def _order(self, order: Order, *, nested: bool = True) -> wire.Json:
        return wire.order(order, self._venue.legs(order) if nested else ())

    async def submit(self, request: web.Request) -> web.Response:
        wanted = parse_order(json_body(await request.read()), self._venue.listing)
        body = self._order(self._runtime.exchange.submit(wanted))
        self._runtime.settle()
        return answer(body)

    async def list_orders(self, request: web.Request) -> web.Response:
        query = order_query(request.query)
        if lag := request.get(LAG):
            return answer(self._orders_before(query, lag))
        found = self._venue.book.select(query)
        return answer([self._order(order, nested=query.nested) for order in found])

    def _orders_before(self, query: OrderQuery, lag: float) -> list[wire.Json]:
        """The list as it was so many seconds ago."""
        earlier = self._runtime.orders_at(self._runtime.clock() - int(lag * moments.SECOND))
        everything = replace(query, status="all", limit=len(self._venue.book) + 1)
        rows: list[wire.Json] = []
        for order in self._venue.book.select(everything):
            row = earlier.get(order.id)
            if row is None:
                row = self._order(order, nested=query.nested)
            if row and query.status in {"all", "open" if is_open(row["status"]) else "closed"}:
                rows.append(row)
        return rows[: query.limit]

    async def get_order(self, request: web.Request) -> web.Response:
        order = self._runtime.exchange.find(request.match_info["order_id"])
        return answer(self._order(order))

    async def get_by_client_id(self, request: web.Request) -> web.Response:
        client_order_id = request.query.get("client_order_id", "")
        order = self._runtime.exchange.find_by_client_id(client_order_id)
        age = (self._runtime.clock() - order.created_at) / moments.SECOND
        if self._runtime.faults.hides(client_order_id, age):
            raise refusals.order_not_found(client_order_id)
        return answer(self._order(order))

    async def replace(self, request: web.Request) -> web.Response:
        wanted = parse_replace(json_body(await request.read()))
        order = self._runtime.exchange.replace(request.match_info["order_id"], wanted)
        body = self._order(order)
        self._runtime.settle()
        return answer(body)

    async def cancel(self, request: web.Request) -> web.Response:
        self._runtime.exchange.cancel(request.match_info["order_id"])
        self._runtime.settle()
        return web.Response(status=204)

    async def cancel_all(self, _request: web.Request) -> web.Response:
        results = self._runtime.exchange.cancel_all()
        self._runtime.settle()
        rows = [
            {"id": order.id, "status": 200}
            if refusal is None
            else {"id": order.id, "status": 500, "body": refusal.body}
            for order, refusal in results
        ]
        return answer(rows, 207)

    def _position(self, symbol: str) -> wire.Json:
        held = self._runtime.listed_positions().get(symbol)
        if held is None:
            raise refusals.position_not_found()
        return self._position_json(held)

    def _position_json(self, held: Position) -> wire.Json:
        venue, symbol = self._venue, held.symbol
        return wire.position(
            held,
            venue.listing[symbol],
            price=venue.prices[symbol].last,
            lastday=venue.prices.lastday(symbol),
            available=holding.available(venue, symbol),
        )

    def _symbol(self, request: web.Request) -> str:
        reference = request.match_info["symbol"]
        asset = self._venue.listing.get(reference)
        if asset is None:
            raise refusals.Refusal(404, 40410000, f"symbol not found: {reference}")
        return asset.symbol

    async def list_positions(self, request: web.Request) -> web.Response:
        listed = self._runtime.listed_positions(request.get(LAG, 0))
        return answer([self._position_json(held) for held in listed.values()])

    async def get_position(self, request: web.Request) -> web.Response:
        return answer(self._position(self._symbol(request)))

    async def close(self, request: web.Request) -> web.Response:
        qty, percentage = decimal(request.query, "qty"), decimal(request.query, "percentage")
        if qty is not None and percentage is not None:
            raise refusals.invalid("only one of qty or percentage is accepted")
        if percentage is not None and not 0 < percentage <= 100:
            raise refusals.invalid("percentage must be between 0 and 100")
        order = self._runtime.exchange.close_position(
            self._symbol(request), qty=qty, percentage=percentage
        )
        body = self._order(order)
        self._runtime.settle()
        return answer(body)

    async def close_all(self, request: web.Request) -> web.Response:
        if yes(request.query, "cancel_orders"):
            self._runtime.exchange.cancel_all_now()
        results: list[wire.Json] = []
        for held in list(self._venue.portfolio):
            try:
                order = self._runtime.exchange.close_position(held.symbol)
                result = {"status": 200, "body": self._order(order)}
            except Refusal as refusal:
                result = {"status": refusal.status, "body": refusal.body}
            results.append({"symbol": held.symbol, **result})
        self._runtime.settle()
        return answer(results, 207)
