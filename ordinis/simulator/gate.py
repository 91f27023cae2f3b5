"""What every trading request passes on its way in and out: keys, rate, journal, faults, headers.

Decides nothing about orders. A request that a fault drops here was still received, and the journal
says so.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable

from aiohttp import web

from ordinis.simulator import mangle, refusals
from ordinis.simulator.faults import AFTER, BEFORE, LIST, Fault
from ordinis.simulator.journal import Entry
from ordinis.simulator.mangle import answer
from ordinis.simulator.moments import SECOND
from ordinis.simulator.query import HEADERS, LAG
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.runtime import Runtime

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_TRADING = ("/v2/", "/v2beta1/")
_DATA = "/v2/stocks/"  # at Alpaca another host, which counts requests on its own
_USUAL_LIMIT = 200  # requests a minute, where the option sets none


def refuse_other_sites(request: web.Request) -> None:
    """A web page from elsewhere must not trade through the reader's own browser."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        raise web.HTTPForbidden(text="only this page may do that")


def _window(limit: int, left: int, minute: int) -> dict[str, str]:
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str((minute + 1) * 60),
    }


class Limiter:
    """Requests a minute, counted for each key in whole minutes as Alpaca's headers tell them."""

    def __init__(self) -> None:
        self._minute = 0
        self._used: dict[str, int] = defaultdict(int)

    def take(self, key: str, limit: int, moment: int) -> tuple[bool, dict[str, str]]:
        """Whether the request may pass, and the headers that say how many are left."""
        if limit <= 0:
            return True, {}
        minute = moment // SECOND // 60
        if minute != self._minute:
            self._minute = minute
            self._used.clear()
        self._used[key] += 1
        used = self._used[key]
        return used <= limit, _window(limit, max(limit - used, 0), minute)


class Gate:
    """Around every trading route."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._limiter = Limiter()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(_TRADING):
            return await handler(request)
        runtime, body = self._runtime, await request.read()
        entry = runtime.journal.add(
            runtime.clock(), request.method, request.path, request.query_string, body
        )
        faults, fault = runtime.faults, None
        if not faults.idle:
            fault = faults.for_request(request.method, request.path, request.query_string, body)
            if faults.bad_day is not None and (blow := faults.bad_day.for_everybody()):
                runtime.strike(blow)
        if fault is not None:
            entry.fault = fault.kind
            if fault.stage == BEFORE:
                return await self._fail(request, fault, entry)
            if fault.kind == "list_lag":
                request[LAG] = fault.seconds
        latency = runtime.exchange.venue.options.latency
        if latency:
            await asyncio.sleep(latency / 2)
        response = await self._admit(request, handler, entry)
        if latency:
            await asyncio.sleep(latency / 2)
        if not isinstance(response, web.Response):
            return response  # an event source: it has been told to its end
        if fault is not None and fault.stage in {AFTER, LIST} and fault.kind != "list_lag":
            return await self._garble(request, response, fault, entry)
        return self._finish(response, entry)

    async def _admit(
        self, request: web.Request, handler: Handler, entry: Entry
    ) -> web.StreamResponse:
        headers: dict[str, str] = {}
        try:
            key = request.headers.get("APCA-API-KEY-ID")
            if not key or not request.headers.get("APCA-API-SECRET-KEY"):
                raise refusals.unauthorized()
            limit = self._runtime.exchange.venue.options.rate_limit
            account = f"{_DATA} {key}" if request.path.startswith(_DATA) else key
            passes, headers = self._limiter.take(account, limit, self._runtime.clock())
            if not passes:
                raise refusals.rate_limited()
            # For an answer that begins before this returns.
            request[HEADERS] = {**headers, "X-Request-ID": _request_id()}
            response = await handler(request)
        except Refusal as refusal:
            response = answer(refusal.body, refusal.status)
        except web.HTTPException as problem:
            # No such path, or not with this method.
            response = answer({"message": f"{problem.reason}."}, problem.status)
        if isinstance(response, web.Response):
            response.headers.update(headers)
        else:
            entry.status = response.status
        return response

    async def _fail(self, request: web.Request, fault: Fault, entry: Entry) -> web.StreamResponse:
        """The request is lost: the exchange never hears of it."""
        if fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
        if fault.kind in {"stall", "drop_before"}:
            mangle.cut(request)
            return web.Response(status=500)
        venue = self._runtime.exchange.venue
        minute = self._runtime.clock() // SECOND // 60
        window = _window(venue.options.rate_limit or _USUAL_LIMIT, 0, minute)
        return self._finish(mangle.unserved(fault, venue, window), entry)

    async def _garble(
        self, request: web.Request, response: web.Response, fault: Fault, entry: Entry
    ) -> web.StreamResponse:
        headers = {"X-Request-ID": _request_id()}
        garbled = await mangle.garble(request, response, fault, headers)
        if isinstance(garbled, web.Response):
            return self._finish(garbled, entry)
        if fault.kind != "cut_after":
            entry.status = garbled.status
        return garbled

    def _finish(self, response: web.Response, entry: Entry) -> web.Response:
        response.headers["X-Request-ID"] = _request_id()
        if entry.fault != "drop_after":
            entry.status = response.status
        return response


def _request_id() -> str:
    return os.urandom(16).hex()
