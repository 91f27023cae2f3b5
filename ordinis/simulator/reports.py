"""Alpaca's REST addresses that only tell: account, activities, assets, clock, and market data.

Nothing here trades; the one thing that changes is the account's configuration.
"""

from datetime import date
from typing import Any

from aiohttp import web

from ordinis.simulator import holidays, moments, refusals, wire, wire_market
from ordinis.simulator.activities import FILL, NON_TRADE, ActivityQuery, kinds_of
from ordinis.simulator.mangle import answer
from ordinis.simulator.query import LAG, choice, moment, whole_number
from ordinis.simulator.request import json_body
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import Venue

_CHOICES: dict[str, set[object]] = {
    "max_margin_multiplier": {"1", "2", "4"},
    "trade_confirm_email": {"all", "none"},
    "max_options_trading_level": {0, 1, 2, 3},
}


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
        return answer(self._runtime.account())

    async def configurations(self, _request: web.Request) -> web.Response:
        return answer(self._venue.configuration)

    async def configure(self, request: web.Request) -> web.Response:
        known, wanted = self._venue.configuration, {}
        for name, value in json_body(await request.read()).items():
            # alpaca-py sends settings that Alpaca has removed, as nulls.
            if value is None or name not in known:
                continue
            allowed = _CHOICES.get(name)
            if type(value) is not type(known[name]) or (allowed and value not in allowed):
                raise refusals.invalid(f"invalid {name}: {value}")
            wanted[name] = value
        known.update(wanted)
        self._venue.market.overnight = not known["disable_overnight_trading"]
        self._venue.changes.settings = True
        self._runtime.settle()
        return answer(known)

    async def activities(self, request: web.Request) -> web.Response:
        """Newest first unless asked otherwise; the page token is the last item's id."""
        query, kind = request.query, request.match_info.get("kind")
        types, category = kind or query.get("activity_types"), query.get("category")
        if types and category:
            raise refusals.invalid("category cannot be used with activity_types")
        kinds = kinds_of(types) if types else None
        if category:
            choice(query, "category", "trade_activity", "non_trade_activity")
            kinds = frozenset({FILL}) if category == "trade_activity" else NON_TRADE
        until = moment(query, "until")
        if lag := request.get(LAG):
            seen_until = self._runtime.clock() - int(lag * moments.SECOND)
            until = seen_until if until is None else min(until, seen_until)
        day = moment(query, "date")
        found = self._venue.activities.page(
            ActivityQuery(
                kinds=kinds,
                after=moment(query, "after"),
                until=until,
                day=None if day is None else moments.text(day)[:10],
                ascending=choice(query, "direction", "desc", "asc") == "asc",
                size=whole_number(query, "page_size", default=100, most=100),
                page_token=query.get("page_token"),
            )
        )
        return answer(found)

    async def clock(self, _request: web.Request) -> web.Response:
        return answer(wire_market.clock(self._venue.market, self._runtime.clock()))

    async def calendar(self, request: web.Request) -> web.Response:
        year = self._venue.market.today(self._runtime.clock()).year
        try:
            start = date.fromisoformat(request.query.get("start", f"{year}-01-01")[:10])
            end = date.fromisoformat(request.query.get("end", f"{year}-12-31")[:10])
        except ValueError as problem:
            raise refusals.malformed(str(problem)) from None
        kind = choice(request.query, "date_type", "TRADING", "SETTLEMENT")
        if kind == "SETTLEMENT":
            # A day settles on the next: those that do so within the bounds.
            start = holidays.previous_trading_day(start)
            days = [
                day
                for day in holidays.trading_days(start, end)
                if start < holidays.next_trading_day(day) <= end
            ]
        else:
            days = list(holidays.trading_days(start, end))
        return answer([wire_market.calendar_day(day) for day in days])

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
        shape = wire_market.latest_quote if kind == "quote" else wire_market.latest_trade
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
