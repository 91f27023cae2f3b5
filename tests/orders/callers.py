"""Callers that all trade on one account at once, in a process of their own.

`python -m tests.orders.callers TOKEN FIRST COUNT ALL FOLDER` plays the callers FIRST, FIRST + 1 …
side by side; in the folder they meet the others of ALL. Each prints one line of JSON: what it was
answered, and how long it had to wait at most.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")

# Every caller sends these under an id of its own: of each content there is one order.
SHARED = ("KO", "OKE", "TSLA")


class Caller:
    """One strategy program, and what it was answered."""

    def __init__(self, token: str, number: int) -> None:
        from django.test import Client

        self.number = number
        self.codes: list[int] = []
        self.longest = 0.0
        self.orders: dict[str, str] = {}  # of its own ids: the order that each stands for
        self._client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        began = time.monotonic()
        answer = self._client.post(f"/api/v1{path}", body, content_type="application/json")
        self.longest = max(self.longest, time.monotonic() - began)
        self.codes.append(answer.status_code)
        told: dict[str, Any] = answer.json()
        order: dict[str, Any] = told.get("order") or told
        if "client_order_id" in body and answer.status_code < 300:
            self.orders[body["client_order_id"]] = order["id"]
        return order

    def trade(self, meet: Callable[[str], None]) -> None:
        meet("begin")
        shared = [
            self.post(
                "/orders",
                client_order_id=f"shared-{self.number}-{symbol}",
                symbol=symbol,
                side="buy",
                qty="2",
                limit_price="11",
            )
            for symbol in SHARED
        ]
        resting = self._own("rests", limit_price=f"12.{self.number:02}")
        self._own("fills", limit_price=f"900.{self.number:02}")
        self._own("fills", limit_price=f"900.{self.number:02}")
        new = self.post(
            f"/orders/{resting['id']}/replace", client_order_id=f"new-{self.number}", qty="5"
        )
        meet("shared")
        # All of them at the same two: one replaces, and the cancel is asked for once.
        self.post(f"/orders/{shared[0]['id']}/replace", qty="3")
        self.post(f"/orders/{shared[1]['id']}/cancel")
        self.post(f"/orders/{new.get('id', resting['id'])}/cancel")

    def _own(self, name: str, **terms: str) -> dict[str, Any]:
        return self.post(
            "/orders",
            client_order_id=f"{name}-{self.number}",
            symbol=("JPM", "XOM", "AAPL", "MSFT")[self.number % 4],
            side="buy",
            qty=str(1 + self.number),
            **terms,
        )


def main(token: str, first: int, count: int, everyone: int, folder: Path) -> None:
    django.setup()
    import logging

    from django.db import connection

    logging.disable(logging.CRITICAL)

    def play(caller: Caller) -> Caller:
        def meet(name: str) -> None:
            (folder / f"{name}-{caller.number}").touch()
            while len(list(folder.glob(f"{name}-*"))) < everyone:
                time.sleep(0.02)

        try:
            caller.trade(meet)
        finally:
            connection.close()
        return caller

    callers = [Caller(token, number) for number in range(first, first + count)]
    with ThreadPoolExecutor(count) as pool:
        for caller in pool.map(play, callers):
            told = {"codes": caller.codes, "longest": caller.longest, "orders": caller.orders}
            print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    own_token, own_first, own_count, of_all, where = sys.argv[1:]
    main(own_token, int(own_first), int(own_count), int(of_all), Path(where))
