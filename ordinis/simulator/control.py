"""The address under /sim/: everything a test or a demo may do to the exchange from outside.

None of it exists at Alpaca, and nothing of Ordinis may depend on it outside tests and the demo.
Described in `docs/simulator.md`.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ordinis.simulator import holding, moments, refusals, wire, wire_market
from ordinis.simulator.app import BrokerApp
from ordinis.simulator.badday import BadDay, read_plan
from ordinis.simulator.book import OrderQuery
from ordinis.simulator.faults import NOW, Fault
from ordinis.simulator.gate import refuse_other_sites
from ordinis.simulator.interventions import Interventions
from ordinis.simulator.mangle import answer
from ordinis.simulator.market import MODES
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.request import decimal
from ordinis.simulator.runtime import Runtime
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import INITIAL_CASH, Venue

Body = dict[str, Any]


class Control:
    """Every route under /sim/."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def routes(self) -> list[web.RouteDef]:
        interventions = Interventions(self._runtime)
        commands: dict[str, Callable[[Body], object]] = {
            "account": self._account,
            "price": self._price,
            "tick": self._tick,
            "market": self._market,
            "options": self._options,
            "reset": self._reset,
            "symbol": self._symbol,
            "faults": self._add_fault,
            "bad-day": self._start_bad_day,
            "clock": self._clock,
            "snapshot": self._load,
            **interventions.commands(),
        }
        return [
            *BrokerApp(self._runtime).routes(),
            *(web.post(f"/sim/{name}", self._command(run)) for name, run in commands.items()),
            web.get("/sim/options", self._get_options),
            web.get("/sim/faults", self._get_faults),
            web.delete("/sim/faults", self._clear_faults),
            web.get("/sim/log", self._log),
            web.delete("/sim/log", self._clear_log),
            web.get("/sim/state", self._state),
            web.get("/sim/bad-day", self._get_bad_day),
            web.delete("/sim/bad-day", self._end_bad_day),
            web.get("/sim/clock", self._get_clock),
            web.get("/sim/snapshot", self._save),
        ]

    @property
    def _venue(self) -> Venue:
        return self._runtime.exchange.venue

    def _command(
        self, run: Callable[[Body], object]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """A route that takes one JSON object, or a list of them, done one after another."""

        async def handle(request: web.Request) -> web.Response:
            refuse_other_sites(request)
            try:
                body = json.loads(await request.read() or b"{}")
                several = isinstance(body, list)
                result = answer([run(item) for item in body] if several else run(body))
            except Refusal as refusal:
                result = answer(refusal.body, refusal.status)
            except KeyError as missing:
                result = answer({"message": f"{missing.args[0]} is needed"}, 422)
            except ValueError as problem:
                result = answer({"message": str(problem)}, 422)
            self._runtime.settle()
            return result

        return handle

    def _account(self, body: Body) -> Body:
        portfolio = self._venue.portfolio
        cash, last_equity = decimal(body, "cash"), decimal(body, "last_equity")
        if cash is not None:
            self._venue.set_cash(cash)
        if last_equity is not None:
            portfolio.last_equity = last_equity
        if "buying_power" in body:
            portfolio.pinned_buying_power = decimal(body, "buying_power")
        self._venue.changes.account = True
        return self._runtime.account()

    def _price(self, body: Body) -> Body:
        """Set a quote and match against it at once; hold or release the walk."""
        if "hold" in body:
            self._runtime.prices_held = body["hold"] is True
            self._venue.changes.settings = True
        if "symbol" in body:
            symbol = self._listed(body).symbol
            bid, ask = decimal(body, "bid"), decimal(body, "ask")
            if bid is None or ask is None or not 0 < bid <= ask:
                raise ValueError("bid and ask are needed, 0 < bid <= ask")
            self._venue.prices.set(symbol, bid, ask)
            self._venue.revalue([symbol])
            self._runtime.exchange.steps.match_symbol(symbol)
        return {"held": self._runtime.prices_held}

    def _listed(self, body: Body) -> Asset:
        asset = self._venue.listing.get(str(body.get("symbol", "")))
        if asset is None:
            raise refusals.asset_not_found(str(body.get("symbol", "")))
        return asset

    def _tick(self, body: Body) -> Body:
        for _ in range(int(body.get("count", 1))):
            self._runtime.exchange.steps.tick()
        return {"ticks": self._venue.prices.ticks}

    def _market(self, body: Body) -> Body:
        mode = body.get("mode")
        if mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}")
        self._runtime.exchange.steps.day.change_mode(mode)
        return wire_market.clock(self._venue.market, self._runtime.clock())

    def _clock(self, body: Body) -> Body:
        """Hold the clock or let it run; set it to a moment, or move it by so many seconds."""
        clock = self._runtime.clock
        if unknown := set(body) - {"hold", "set", "advance"}:
            raise ValueError(f"a clock has no {', '.join(sorted(unknown))}")
        target = clock()
        if "set" in body:
            target = moments.parse(str(body["set"]))
        seconds = decimal(body, "advance")
        if seconds is not None:
            if seconds < 0:
                raise ValueError("advance is in seconds, 0 or more; set goes back")
            target += int(seconds * moments.SECOND)
        if "hold" in body:
            if body["hold"] is True:
                clock.hold()
            else:
                clock.release()
            self._venue.draws.repeatable = clock.held
        if "set" in body or seconds is not None:
            self._runtime.travel(target)
        self._venue.changes.settings = True
        return self._clock_json()

    def _clock_json(self) -> Body:
        clock = self._runtime.clock
        return {"now": moments.text(clock()), "held": clock.held}

    def _load(self, body: Body) -> Body:
        self._runtime.load(body)
        return {"orders": len(self._venue.book), **self._clock_json()}

    def _start_bad_day(self, body: Body) -> Body:
        faults, clock = self._runtime.faults, self._runtime.clock
        faults.bad_day = BadDay(read_plan(body, clock), clock)
        return faults.bad_day.dump()

    def _options(self, body: Body) -> Body:
        self._venue.options.change(body)
        self._venue.changes.settings = True
        return self._venue.options.dump()

    def _reset(self, body: Body) -> Body:
        cash = decimal(body, "cash")
        self._runtime.reset(cash=INITIAL_CASH if cash is None else cash)
        return self._runtime.account()

    def _symbol(self, body: Body) -> Body:
        """List an instrument that was not there."""
        price = decimal(body, "price")
        symbol = str(body["symbol"]).upper()
        if price is None or price <= 0:
            raise ValueError("price is needed, above 0")
        if self._venue.listing.get(symbol) is not None:
            raise ValueError(f"{symbol} is listed already")
        asset = Asset(
            symbol=symbol,
            exchange=str(body.get("exchange", "NYSE")),
            start_price=price,
            name=str(body.get("name", symbol)),
            leverage=int(body.get("leverage", 1)),
            fractionable=body.get("fractionable", True) is True,
            shortable=body.get("shortable", True) is True,
            tradable=body.get("tradable", True) is True,
            marginable=body.get("marginable", True) is True,
            listed_by_hand=True,
        )
        self._venue.add_asset(asset)
        return wire.asset(asset)

    def _add_fault(self, body: Body) -> Body:
        rule = Fault.read(body)
        if rule.stage == NOW:
            self._runtime.strike(rule)
        else:
            self._runtime.faults.add(rule)
        return rule.dump()

    async def _get_bad_day(self, _request: web.Request) -> web.Response:
        day = self._runtime.faults.bad_day
        return answer(None if day is None else day.dump())

    async def _end_bad_day(self, request: web.Request) -> web.Response:
        """What it did; nothing more comes of it."""
        refuse_other_sites(request)
        day, self._runtime.faults.bad_day = self._runtime.faults.bad_day, None
        return answer(None if day is None else day.dump())

    async def _get_clock(self, _request: web.Request) -> web.Response:
        return answer(self._clock_json())

    async def _save(self, _request: web.Request) -> web.Response:
        return answer(self._runtime.dump())

    async def _get_options(self, _request: web.Request) -> web.Response:
        return answer(self._venue.options.dump())

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return answer(self._runtime.faults.dump())

    async def _clear_faults(self, request: web.Request) -> web.Response:
        refuse_other_sites(request)
        self._runtime.faults.clear()
        return answer([])

    async def _log(self, request: web.Request) -> web.Response:
        method, path = request.query.get("method"), request.query.get("path")
        return answer(self._runtime.journal.select(method=method, path=path))

    async def _clear_log(self, request: web.Request) -> web.Response:
        refuse_other_sites(request)
        self._runtime.journal.clear()
        return answer([])

    async def _state(self, _request: web.Request) -> web.Response:
        venue = self._venue
        everything = OrderQuery(status="all", limit=len(venue.book) + 1, ascending=True)
        return answer(
            {
                "account": self._runtime.account(),
                "positions": [
                    {
                        "symbol": held.symbol,
                        "qty": refusals.plain(held.qty),
                        "average_price": refusals.plain(held.average_price),
                        "qty_available": refusals.plain(holding.available(venue, held.symbol)),
                    }
                    for held in venue.portfolio
                ],
                "orders": [wire.order(order) for order in venue.book.select(everything)],
                "prices": {
                    asset.symbol: {
                        "bid": refusals.plain(venue.prices[asset.symbol].bid),
                        "ask": refusals.plain(venue.prices[asset.symbol].ask),
                    }
                    for asset in venue.listing
                },
                "ticks": venue.prices.ticks,
                "prices_held": self._runtime.prices_held,
                "market": venue.market.mode,
                "stream_listeners": self._runtime.stream.listeners,
                "event_listeners": self._runtime.sources.listeners,
            }
        )
