"""A whole desk in one process: strategies that trade, the stream, the jobs, a person who decides.

`python -m tests.crashes.desk TOKEN` trades for a while and reaches every failpoint more than once;
with ORDINIS_FAILPOINT set it dies there. Each answer that a strategy got is a line of its output.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import django
import requests

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")

TURNS = 3


class Strategy:
    """Sends what a strategy sends, in this process, and says what was answered."""

    def __init__(self, token: str) -> None:
        from django.test import Client

        self._client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(f"/api/v1{path}", body, content_type="application/json")
        told = answer.json()
        order = told.get("order", told) or {}
        line = f"{answer.status_code} {path} {order.get('client_order_id', '-')}\n"
        sys.stdout.write(line)  # in one piece: several threads write
        return dict(order)

    def get(self, path: str) -> dict[str, Any]:
        return dict(self._client.get(f"/api/v1{path}").json())


class Broker:
    """The simulator, beside Ordinis: a person with the broker's own app, and what goes wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"APCA-API-KEY-ID": "k", "APCA-API-SECRET-KEY": "s"})

    def control(self, path: str, body: Any) -> None:
        self._session.post(f"{self._url}/sim{path}", json=body, timeout=5)

    def reprice(self, broker_order_id: str, limit_price: str) -> None:
        path = f"{self._url}/v2/orders/{broker_order_id}"
        self._session.patch(path, json={"limit_price": limit_price}, timeout=5)


def resting(strategy: Strategy, broker: Broker, turn: int) -> None:
    """Orders that rest: one cancelled, one replaced, one replaced in the broker's own app, the
    rest cancelled at once in the end."""
    rest = {"symbol": "KO", "side": "buy", "qty": "3"}
    ids = [
        strategy.post("/orders", {**rest, "limit_price": f"{20 + turn}.0{number}"})
        for number in range(4)
    ]
    _wait(0.1)
    strategy.post(f"/orders/{ids[0]['id']}/cancel", {})
    strategy.post(f"/orders/{ids[1]['id']}/replace", {"limit_price": f"{30 + turn}.01", "qty": "4"})
    if ids[2].get("broker_order_id"):
        broker.reprice(ids[2]["broker_order_id"], f"{40 + turn}.02")
    _wait(0.2)
    strategy.post("/orders/cancel-all", {"reason": "the end of a turn", "symbol": "KO"})


def covered(strategy: Strategy, broker: Broker, turn: int) -> None:
    """Orders that fill, with exits that are sent then."""
    body = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": "10",
        "limit_price": f"25{turn}.50",
        "take_profit": {"limit_price": "300.00"},
        "stop_loss": {"stop_price": "200.00"},
    }
    strategy.post("/orders", body)


def unlucky(strategy: Strategy, broker: Broker, turn: int) -> None:
    """Orders whose answers are lost, or that are refused."""
    # Buys of a symbol wait for its unresolved ones: each fault has a symbol of its own.
    for number, (symbol, fault) in enumerate(
        (("XOM", "drop_after"), ("JPM", "drop_before"), ("AAPL", "no_funds"))
    ):
        name = f"unlucky-{turn}-{number}"
        post = {"method": "POST", "path": "/v2/orders", "body": f'"{name}"'}
        broker.control("/faults", [{**post, "kind": fault}])
        body = {"client_order_id": name, "symbol": symbol, "side": "buy", "qty": "1"}
        strategy.post("/orders", {**body, "limit_price": f"5{turn}.0{number}"})


def moved_by_hand(strategy: Strategy, broker: Broker, turn: int) -> None:
    """A position changed in the broker's own app, and a person who approves the correction."""
    from django.contrib.auth.models import User

    from reconciliation import corrections
    from reconciliation.models import Correction

    broker.control("/position", {"symbol": "OKE", "qty": str(40 + turn), "average_price": "70"})
    for _ in range(100):
        if Correction.objects.filter(status="proposed").exists():
            break
        _wait(0.1)
    approver, _ = User.objects.get_or_create(username="approver", is_superuser=True)
    for row in Correction.objects.filter(status="proposed"):
        with suppress(corrections.NotDecided):
            corrections.decide(row.pk, "approve", user=approver, comment="Seen.")


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _keep(work: Callable[[], object], ended: threading.Event) -> None:
    from django.db import connection

    while not ended.wait(0.05):
        work()
    connection.close()


def main(token: str) -> None:
    django.setup()
    from datetime import timedelta

    from django.conf import settings
    from django.db import connection

    from orders import cancelling, dependents, jobs, resolver
    from ordinis.accounts.models import ApiToken
    from reconciliation.run import reconcile
    from tests.listening import Listening

    settings.SECOND_LOOK_SECONDS = 0
    resolver._OVER = timedelta(seconds=0.3)
    dependents._AT_LEAST = timedelta(seconds=0.1)
    cancelling._AGAIN = timedelta(seconds=0.5)
    strategy, broker = Strategy(token), Broker(settings.BROKER_URL)
    issued = ApiToken.authenticate(token)
    assert issued is not None
    account = issued.strategy.account

    def trade(scene: Callable[[Strategy, Broker, int], None]) -> None:
        try:
            for turn in range(TURNS):
                scene(strategy, broker, turn)
        finally:
            connection.close()

    ended = threading.Event()
    keepers = [
        threading.Thread(target=_keep, args=(work, ended))
        for work in (
            jobs.resolve,
            jobs.follow_up,
            jobs.pursue_cancels,
            jobs.poll,
            lambda: reconcile(account),
            lambda: strategy.get("/events?after=0"),
        )
    ]
    with Listening(account):
        for keeper in keepers:
            keeper.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(trade, (resting, covered, unlucky, moved_by_hand)))
            _wait(1.0)
            strategy.post("/orders/cancel-all", {"reason": "the end of the day"})
        finally:
            ended.set()
            for keeper in keepers:
                keeper.join()
    print("done")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
