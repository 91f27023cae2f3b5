"""What a faulty answer looks like: errors without effect, and answers lost, late or garbled.

Works on finished answers and knows nothing of orders.
"""

import asyncio
import json
from typing import Any

from aiohttp import web

from ordinis.simulator import refusals
from ordinis.simulator.faults import Fault
from ordinis.simulator.venue import Venue

_HTML = "<html><body><h1>{status}</h1><p>The server is temporarily unavailable.</p></body></html>"
_UNHEARD_OF = "pending_quantum"
_DRIPS = 20


def answer(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(body).encode(), status=status, content_type="application/json"
    )


def cut(request: web.Request) -> None:
    """End the connection without a farewell."""
    if request.transport is not None:
        request.transport.abort()


def unserved(fault: Fault, venue: Venue, window: dict[str, str]) -> web.Response:
    """The answer to a request that the exchange never heard of."""
    if fault.kind.startswith("html"):
        return _html(fault)
    if fault.kind.startswith("empty"):
        return web.Response(status=fault.status)
    if fault.kind.startswith("redirect"):
        return _redirect(fault)
    if fault.kind == "no_funds":
        buying_power = venue.buying_power()
        refusal = refusals.insufficient_buying_power(buying_power, buying_power + 1)
        return answer(refusal.body, refusal.status)
    if fault.kind == "duplicate_id":
        return _duplicate()
    response = _error(fault)
    if fault.kind == "rate_limited" and fault.headers:
        response.headers.update(window)
    return response


async def garble(
    request: web.Request, response: web.Response, fault: Fault, headers: dict[str, str]
) -> web.StreamResponse:
    """The answer to a request that took effect, as the client gets to see it."""
    if fault.kind == "drop_after":
        cut(request)
    elif fault.kind == "delay_after":
        await asyncio.sleep(fault.seconds)
    elif fault.kind == "status_after":
        return _error(fault)
    elif fault.kind == "html_after":
        return _html(fault)
    elif fault.kind == "empty_after":
        return web.Response(status=fault.status)
    elif fault.kind == "redirect_after":
        return _redirect(fault)
    elif fault.kind == "duplicate_id_after":
        return _duplicate()
    elif fault.kind == "truncated_after":
        response.body = _body(response)[: len(_body(response)) // 2]
    elif fault.kind in {"cut_after", "drip_after"}:
        return await _trickle(request, response, fault, headers)
    else:
        _rewrite(response, fault)
    return response


def _body(response: web.Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b""


def _html(fault: Fault) -> web.Response:
    text = _HTML.format(status=fault.status)
    return web.Response(text=text, status=fault.status, content_type="text/html")


def _redirect(fault: Fault) -> web.Response:
    return web.Response(status=fault.status, headers={"Location": "/maintenance"})


def _duplicate() -> web.Response:
    return answer({"code": 40010001, "message": "client_order_id must be unique"}, 422)


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


async def _trickle(
    request: web.Request, response: web.Response, fault: Fault, headers: dict[str, str]
) -> web.StreamResponse:
    """The true answer a few bytes at a time, or only its first half."""
    body = _body(response)
    slow = web.StreamResponse(
        status=response.status, headers={"Content-Type": "application/json", **headers}
    )
    slow.content_length = len(body)
    await slow.prepare(request)
    if fault.kind == "cut_after":
        await slow.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return slow
    size = max(len(body) // _DRIPS, 1)
    try:
        for start in range(0, len(body), size):
            await asyncio.sleep(fault.seconds / _DRIPS)
            await slow.write(body[start : start + size])
    except ConnectionError:
        pass  # the client gave up
    return slow


def _rewrite(response: web.Response, fault: Fault) -> None:
    """A list that lacks something, or values nobody has heard of."""
    try:
        body = json.loads(_body(response))
    except ValueError:
        return
    if fault.kind == "odd_after":
        for row in body if isinstance(body, list) else [body]:
            _make_odd(row)
    elif isinstance(body, list) and response.status == 200:
        # Of the newest, every second: a gap that no count of rows shows.
        body = [] if fault.kind == "list_empty" else body[1::2]
    response.body = json.dumps(body).encode()


def _make_odd(row: dict[str, Any]) -> None:
    row["field_nobody_knows"] = {"nested": [1, None]}
    for name, value in (("status", _UNHEARD_OF), ("submitted_at", None)):
        if name in row:
            row[name] = value
