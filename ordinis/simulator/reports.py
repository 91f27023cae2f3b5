"""Alpaca's REST addresses that only tell: account, activities, assets, clock, and market data.

Nothing here trades; the one thing that changes is the account's configuration.
"""

from datetime import date
from typing import Any

from aiohttp import web

from ordinis.simulator import moments, refusals, wire
from ordinis.simulator.gate import answer
from ordinis.simulator.request import json_body
from ordinis.simulator.rest import choice, moment, whole_number
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import Venue


class Reports:
    """What can be read beside orders and positions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/account", self.account),
            web.get("/v2/account/configurations", self.configurations),
            web.patch("/v2/account/configurations", self.configure),
            web.get("/v2/account/activities", self.activities),
            web.get("/v2/account/activities/{kind}", self.activities),
            web.get("/v2/clock", self.clock),
            web.get("/v2/calendar", self.calendar),
            web.get("/v2/assets", self.assets),
            web.get("/v2/assets/{symbol}", self.asset),
            web.get("/v2/stocks/quotes/latest", self.quotes),
            web.get("/v2/stocks/trades/latest", self.trades),
            web.get("/v2/stocks/{symbol}/quotes/latest", self.quote),
            web.get("/v2/stocks/{symbol}/trades/latest", self.trade),
        ]

    @property
    def _venue(self) -> Venue:
        return self._runtime.exchange.venue

    async def account(self, _request: web.Request) -> web.Response:
        venue = self._venue
        return answer(
            wire.account(
                venue.portfolio,
                margin=venue.options.buying_power_margin,
                opened_at=venue.opened_at,
                today=venue.market.today(self._runtime.clock()),
                settings=venue.configuration,
            )
        )

    async def configurations(self, _request: web.Request) -> web.Response:
        return answer(self._venue.configuration)

    async def configure(self, request: web.Request) -> web.Response:
        known = self._venue.configuration
        for name, value in json_body(await request.read()).items():
            # alpaca-py sends settings that Alpaca has removed, as nulls.
            if value is None or name not in known:
                continue
            if type(value) is not type(known[name]):
                raise refusals.invalid(f"invalid {name}: {value}")
            known[name] = value
        self._venue.changes.settings = True
        self._runtime.settle()
        return answer(known)

    async def activities(self, request: web.Request) -> web.Response:
        """Newest first unless asked otherwise; the page token is the last item's id."""
        query = request.query
        kinds = request.match_info.get("kind") or query.get("activity_types") or "FILL"
        if "FILL" not in kinds.split(","):
            return answer([])
        size = whole_number(query, "page_size", default=100, most=100)
        after, until = moment(query, "after"), moment(query, "until")
        # Moments of one form and zone sort as text.
        first = None if after is None else moments.text(after)
        end = None if until is None else moments.text(until)
        day = query.get("date")
        found = [
            activity
            for activity in self._venue.activities
            if (first is None or activity["transaction_time"] > first)
            and (end is None or activity["transaction_time"] < end)
            and (not day or activity["transaction_time"].startswith(day))
        ]
        if choice(query, "direction", "desc", "asc") == "desc":
            found.reverse()
        token = query.get("page_token")
        if token:
            places = [place for place, activity in enumerate(found) if activity["id"] == token]
            if not places:
                raise refusals.invalid(f"invalid page_token: {token}")
            found = found[places[0] + 1 :]
        return answer(found[:size])

    async def clock(self, _request: web.Request) -> web.Response:
        return answer(wire.clock(self._venue.market, self._runtime.clock()))

    async def calendar(self, request: web.Request) -> web.Response:
        year = self._venue.market.today(self._runtime.clock()).year
        try:
            start = date.fromisoformat(request.query.get("start", f"{year}-01-01")[:10])
            end = date.fromisoformat(request.query.get("end", f"{year}-12-31")[:10])
        except ValueError as problem:
            raise refusals.invalid(str(problem)) from None
        return answer(wire.calendar(start, end))

    def _asset(self, request: web.Request) -> Asset:
        reference = request.match_info["symbol"]
        asset = self._venue.listing.get(reference)
        if asset is None:
            raise refusals.asset_not_found(reference)
        return asset

    async def assets(self, request: web.Request) -> web.Response:
        status, exchange = request.query.get("status"), request.query.get("exchange")
        if request.query.get("asset_class", "us_equity") != "us_equity":
            return answer([])
        rows = [wire.asset(asset) for asset in self._venue.listing]
        return answer(
            [
                row
                for row in rows
                if (not status or row["status"] == status)
                and (not exchange or row["exchange"] == exchange)
            ]
        )

    async def asset(self, request: web.Request) -> web.Response:
        return answer(wire.asset(self._asset(request)))

    def _latest(self, asset: Asset, kind: str) -> dict[str, Any]:
        shape = wire.latest_quote if kind == "quote" else wire.latest_trade
        return shape(self._venue.prices[asset.symbol], self._runtime.clock())

    def _latest_of_many(self, request: web.Request, kind: str) -> web.Response:
        wanted = [part.strip() for part in request.query.get("symbols", "").split(",")]
        found = [asset for part in wanted if (asset := self._venue.listing.get(part))]
        return answer({f"{kind}s": {asset.symbol: self._latest(asset, kind) for asset in found}})

    async def quotes(self, request: web.Request) -> web.Response:
        return self._latest_of_many(request, "quote")

    async def trades(self, request: web.Request) -> web.Response:
        return self._latest_of_many(request, "trade")

    async def quote(self, request: web.Request) -> web.Response:
        asset = self._asset(request)
        return answer({"symbol": asset.symbol, "quote": self._latest(asset, "quote")})

    async def trade(self, request: web.Request) -> web.Response:
        asset = self._asset(request)
        return answer({"symbol": asset.symbol, "trade": self._latest(asset, "trade")})
