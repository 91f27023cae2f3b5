"""The broker's own app: where a person trades past Ordinis, by form or by JSON.

One page that works without JavaScript. Nothing that came from outside reaches it unescaped.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from html import escape
from urllib.parse import urlencode

from aiohttp import web

from ordinis.simulator import refusals, wire
from ordinis.simulator.book import OrderQuery
from ordinis.simulator.gate import refuse_other_sites
from ordinis.simulator.mangle import answer
from ordinis.simulator.order import Order
from ordinis.simulator.refusals import Refusal, plain
from ordinis.simulator.request import decimal, json_body
from ordinis.simulator.runtime import Runtime

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Simulated broker</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color-scheme: light dark; font-variant-numeric: tabular-nums }}
table {{ border-collapse: collapse; width: 100%; margin-bottom: 2rem }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884 }}
td.n, th.n {{ text-align: right }}
.scroll {{ overflow-x: auto }}
form.inline {{ display: inline }}
[role=status] {{ border-left: 4px solid #888; padding-left: .8rem }}
</style></head><body>
<h1>Simulated broker</h1>
<p>This is the broker's own app. What is traded here goes past Ordinis, as a hand trade in a real
broker's app does.</p>
{message}
<h2>Account</h2>
<div class="scroll"><table><tr><th class="n">Equity</th><th class="n">Cash</th>
<th class="n">Buying power</th></tr>
<tr><td class="n">{equity}</td><td class="n">{cash}</td><td class="n">{buying_power}</td></tr>
</table></div>
<h2>Trade by hand</h2>
<form method="post" action="/sim/trade">
<label>Symbol <input name="symbol" list="symbols" required size="8"></label>
<label>Quantity <input name="qty" required size="8" inputmode="decimal"></label>
<label>Price <input name="price" size="8" inputmode="decimal" placeholder="market"></label>
<button name="side" value="buy">Buy</button> <button name="side" value="sell">Sell</button>
<datalist id="symbols">{symbols}</datalist>
</form>
<h2>Positions</h2>
{positions}
<h2>Open orders</h2>
{orders}
</body></html>
"""


def _table(headings: Iterable[str], rows: list[str], empty: str) -> str:
    if not rows:
        return f"<p>{empty}</p>"
    head = "".join(f'<th class="n">{name}</th>' for name in headings)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _dollars(value: Decimal) -> str:
    return f"{value:,.2f}"


def _row(cells: Iterable[str], button: tuple[str, str, str, str]) -> str:
    """Cells, and a button: where it posts, its name, value and label."""
    action, name, value, label = button
    tds = "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
    form = (
        f'<form class="inline" method="post" action="{action}">'
        f'<button name="{name}" value="{escape(value, quote=True)}">{label}</button></form>'
    )
    return f"<tr>{tds}<td>{form}</td></tr>"


class BrokerApp:
    """The page, and the three things one can do on it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sim/", self.page),
            web.post("/sim/trade", self.trade),
            web.post("/sim/close", self.close),
            web.post("/sim/cancel", self.cancel),
        ]

    async def trade(self, request: web.Request) -> web.Response:
        return await self._do(request, self._trade)

    async def close(self, request: web.Request) -> web.Response:
        return await self._do(request, self._close)

    async def cancel(self, request: web.Request) -> web.Response:
        return await self._do(request, self._cancel)

    def _trade(self, values: dict[str, str]) -> Order:
        side, qty, price = values.get("side"), decimal(values, "qty"), decimal(values, "price")
        if side not in {"buy", "sell"}:
            raise refusals.invalid("side must be buy or sell")
        if qty is None or qty <= 0:
            raise refusals.invalid("qty must be > 0")
        if price is not None and price <= 0:
            raise refusals.invalid("price must be > 0")
        return self._runtime.exchange.trade_by_hand(values.get("symbol", ""), side, qty, price)

    def _close(self, values: dict[str, str]) -> Order:
        symbol = values.get("symbol", "")
        held = self._runtime.exchange.venue.portfolio.qty(symbol)
        if not held:
            raise refusals.position_not_found()
        side = "sell" if held > 0 else "buy"
        return self._runtime.exchange.trade_by_hand(symbol, side, abs(held))

    def _cancel(self, values: dict[str, str]) -> Order:
        self._runtime.exchange.cancel(values.get("id", ""))
        return self._runtime.exchange.find(values.get("id", ""))

    async def _do(
        self, request: web.Request, act: Callable[[dict[str, str]], Order]
    ) -> web.Response:
        """Answers JSON with JSON, and a form with the page."""
        refuse_other_sites(request)
        is_form = request.content_type == "application/x-www-form-urlencoded"
        try:
            order = act(await self._values(request, is_form=is_form))
        except Refusal as refusal:
            if is_form:
                return self._back(f"Refused: {refusal}")
            return answer(refusal.body, refusal.status)
        self._runtime.settle()
        if is_form:
            return self._back(f"{order.side} {plain(order.shares)} {order.symbol}: {order.status}")
        return answer(wire.order(order))

    async def _values(self, request: web.Request, *, is_form: bool) -> dict[str, str]:
        if is_form:
            form = await request.post()
            return {name: value for name, value in form.items() if isinstance(value, str)}
        body = json_body(await request.read())
        return {name: str(value) for name, value in body.items() if value is not None}

    def _back(self, message: str) -> web.Response:
        query = urlencode({"message": message})
        return web.Response(status=303, headers={"Location": f"/sim/?{query}"})

    async def page(self, request: web.Request) -> web.Response:
        venue = self._runtime.exchange.venue
        message = request.query.get("message", "")
        prices = {held.symbol: venue.prices[held.symbol].last for held in venue.portfolio}
        positions = [
            _row(
                (
                    held.symbol,
                    plain(held.qty),
                    plain(held.average_price),
                    plain(prices[held.symbol]),
                    _dollars(held.qty * (prices[held.symbol] - held.average_price)),
                ),
                ("/sim/close", "symbol", held.symbol, "Close"),
            )
            for held in venue.portfolio
        ]
        orders = [
            _row(
                (
                    order.symbol,
                    order.side,
                    f"{plain(order.filled_qty)} of {plain(order.shares)}",
                    plain(order.limit_price) if order.limit_price else order.type,
                    order.status,
                    order.client_order_id,
                ),
                ("/sim/cancel", "id", order.id, "Cancel"),
            )
            for order in venue.book.select(OrderQuery(limit=500))
        ]
        text = _PAGE.format(
            message=f'<p role="status">{escape(message)}</p>' if message else "",
            equity=_dollars(venue.portfolio.equity),
            cash=_dollars(venue.portfolio.cash),
            buying_power=_dollars(venue.buying_power()),
            symbols="".join(f"<option>{escape(it.symbol)}</option>" for it in venue.listing),
            positions=_table(
                ("Symbol", "Quantity", "Average price", "Price", "Profit", ""),
                positions,
                "No positions.",
            ),
            orders=_table(
                ("Symbol", "Side", "Filled", "Limit", "Status", "Client order id", ""),
                orders,
                "No open orders.",
            ),
        )
        return web.Response(text=text, content_type="text/html")
