"""The demo strategy: buys and sells small lots of a few shares through the HTTP API.

It shows the main job at work, not a way to make money. It speaks only HTTP: to Ordinis for
orders and positions, to the exchange's market data for prices.
"""

import itertools
import logging
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import uuid4

import requests

log = logging.getLogger("ordinis.strategies.demo")

SYMBOLS = ("TSLA", "AAPL", "MSFT", "OKE", "XOM", "JPM", "KO", "UNH")
LOT = 10
MOST_HELD = 50
MOST_OPEN = 16


class Demo:
    """One round looks at one symbol and sends at most one order."""

    def __init__(self, *, api_url: str, data_url: str, token: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._data_url = data_url.rstrip("/")
        self._api = _session({"Authorization": f"Bearer {token}"})
        self._data = _session(
            {"APCA-API-KEY-ID": "demo-strategy", "APCA-API-SECRET-KEY": "demo-strategy"}
        )
        self._selling: set[str] = set()

    def run(self, *, every: float, stopped: Callable[[float], bool]) -> None:
        """Rounds without end; `stopped(seconds)` waits and says whether to end."""
        for symbol in itertools.cycle(SYMBOLS):
            try:
                self.round(symbol)
            except requests.RequestException as error:
                log.warning("no answer", extra={"symbol": symbol, "error": str(error)})
            if stopped(every):
                return

    def round(self, symbol: str) -> None:
        """Buys a lot until enough is held, then sells lots until nothing is left."""
        if len(self._get("/orders", status="open", limit=MOST_OPEN)["items"]) >= MOST_OPEN:
            return
        held = self._held(symbol)
        if held >= MOST_HELD:
            self._selling.add(symbol)
        elif held < LOT:
            self._selling.discard(symbol)
        self._send(symbol, "sell" if symbol in self._selling else "buy")

    def _send(self, symbol: str, side: str) -> None:
        bid, ask = self._quote(symbol)
        # At the other side of the market, so that the order fills; the offset is for patience.
        price = ask if side == "buy" else bid
        order = {
            "client_order_id": f"demo-{uuid4()}",
            "symbol": symbol,
            "side": side,
            "qty": str(LOT),
            "limit_price": str(price),
        }
        started = time.monotonic()
        answer = self._api.post(f"{self._api_url}/orders", json=order, timeout=15)
        body = answer.json()
        log.info(
            "order",
            extra={
                "symbol": symbol,
                "side": side,
                "limit_price": str(price),
                "answer": answer.status_code,
                "status": body.get("status"),
                "detail": body.get("detail", ""),
                "latency_ms": round((time.monotonic() - started) * 1000),
            },
        )

    def _held(self, symbol: str) -> Decimal:
        answer = self._api.get(f"{self._api_url}/positions/{symbol}", timeout=15)
        if answer.status_code == 404:
            return Decimal(0)
        answer.raise_for_status()
        return Decimal(answer.json()["qty"])

    def _quote(self, symbol: str) -> tuple[Decimal, Decimal]:
        answer = self._data.get(f"{self._data_url}/v2/stocks/{symbol}/quotes/latest", timeout=15)
        answer.raise_for_status()
        quote = answer.json()["quote"]
        return Decimal(str(quote["bp"])), Decimal(str(quote["ap"]))

    def _get(self, path: str, **query: Any) -> Any:
        answer = self._api.get(f"{self._api_url}{path}", params=query, timeout=15)
        answer.raise_for_status()
        return answer.json()


def _session(headers: dict[str, str]) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy in the environment would capture even loopback
    session.headers.update(headers)
    return session
