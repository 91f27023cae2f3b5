"""What every trading request passes on its way in and out: keys, rate, journal, faults, headers.

Decides nothing about orders. A request that a fault drops here was still received, and the journal
says so.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable

from aiohttp import web

from ordinis.simulator import refusals
from ordinis.simulator.faults import AFTER, BEFORE, Fault
from ordinis.simulator.journal import Entry
from ordinis.simulator.moments import SECOND
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.runtime import Runtime

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HTML = "<html><body><h1>{status}</h1><p>The server is temporarily unavailable.</p></body></html>"


def answer(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json"
    )


def refuse_other_sites(request: web.Request) -> None:
    """A web page from elsewhere must not trade through the reader's own browser."""
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.host}":
        raise web.HTTPForbidden(text="only this page may do that")


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
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(limit - used, 0)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }
        return used <= limit, headers


class Gate:
    """Around every /v2 route."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._limiter = Limiter()

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/v2/"):
            return await handler(request)
        runtime, body = self._runtime, await request.read()
        entry = runtime.journal.add(
            runtime.clock(), request.method, request.path, request.query_string, body
        )
        fault = runtime.faults.for_request(request.method, request.path, body)
        if fault is not None:
            entry.fault = fault.kind
            if fault.kind in BEFORE:
                return await self._fail_before(request, fault, entry)
        latency = runtime.exchange.venue.options.latency
        if latency:
            await asyncio.sleep(latency / 2)
        response = await self._admit(request, handler)
        if latency:
            await asyncio.sleep(latency / 2)
        if fault is not None and fault.kind in AFTER:
            response = await self._fail_after(request, response, fault)
        return self._finish(response, entry)

    async def _admit(self, request: web.Request, handler: Handler) -> web.Response:
        headers: dict[str, str] = {}
        try:
            key = request.headers.get("APCA-API-KEY-ID")
            if not key or not request.headers.get("APCA-API-SECRET-KEY"):
                raise refusals.unauthorized()
            limit = self._runtime.exchange.venue.options.rate_limit
            passes, headers = self._limiter.take(key, limit, self._runtime.clock())
            if not passes:
                raise refusals.rate_limited()
            response = await handler(request)
            if not isinstance(response, web.Response):
                raise TypeError("every /v2 route answers at once")
        except Refusal as refusal:
            response = answer(refusal.body, refusal.status)
        except web.HTTPException as problem:
            # No such path, or not with this method.
            response = answer({"message": f"{problem.reason}."}, problem.status)
        response.headers.update(headers)
        return response

    async def _fail_before(
        self, request: web.Request, fault: Fault, entry: Entry
    ) -> web.StreamResponse:
        """The request is lost: the exchange never hears of it."""
        if fault.kind == "status_before":
            return self._finish(_error(fault), entry)
        if fault.kind == "stall":
            await asyncio.sleep(fault.seconds)
        _abort(request)
        return web.Response(status=500)

    async def _fail_after(
        self, request: web.Request, response: web.Response, fault: Fault
    ) -> web.Response:
        """It took effect; the client does not get to know, or late, or garbled."""
        if fault.kind == "delay_after":
            await asyncio.sleep(fault.seconds)
        elif fault.kind == "status_after":
            return _error(fault)
        elif fault.kind == "html_after":
            text = _HTML.format(status=fault.status)
            return web.Response(text=text, status=fault.status, content_type="text/html")
        else:
            _abort(request)
        return response

    def _finish(self, response: web.Response, entry: Entry) -> web.Response:
        response.headers["X-Request-ID"] = os.urandom(16).hex()
        if entry.fault != "drop_after":
            entry.status = response.status
        return response


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _error(fault: Fault) -> web.Response:
    body: dict[str, object]
    if fault.status == 429:
        body = refusals.rate_limited().body
    elif fault.status == 503:
        body = {"code": 50310000, "message": "service unavailable"}
    elif fault.status >= 500:
        body = {"code": 50010000, "message": "internal server error occurred"}
    else:
        body = {"message": "forbidden." if fault.status == 403 else "unauthorized."}
    response = answer(body, fault.status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = str(fault.retry_after)
    return response
