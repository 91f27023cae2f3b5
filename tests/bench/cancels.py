"""How long it takes until all open orders are confirmed cancelled."""

from collections.abc import Callable
from typing import Any

from tests.bench.measure import timed


def measure(sim: Any) -> None:
    """Seconds from the request to cancel all until each order is confirmed cancelled."""
    from django.test import Client

    from ordinis.accounts.models import SCOPES, BrokerAccount
    from ordinis.accounts.setup import issue_token
    from tests.listening import Listening, listeners
    from tests.waiting import until

    _, token = issue_token(strategy="bench", account="main", scopes=SCOPES)
    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})

    def rest(count: int) -> None:
        for number in range(count):
            price = f"{2 + number // 100}.{number % 100:02}"
            body = {"symbol": "KO", "side": "buy", "qty": "1", "limit_price": price}
            answer = client.post("/api/v1/orders", body, content_type="application/json")
            assert answer.status_code == 201, answer.content

    def cancel_all() -> None:
        body = {"reason": "bench"}
        answer = client.post("/api/v1/orders/cancel-all", body, content_type="application/json")
        assert {each["outcome"] for each in answer.json()["results"]} <= {"canceled"}

    def floor() -> None:
        sim.trading("DELETE", "/v2/orders").raise_for_status()
        sim.trading("GET", "/v2/orders?status=all&limit=500").raise_for_status()

    def slowly(work: Callable[[], object]) -> float:
        sim.post("/sim/options", {"latency": 0.1})
        seconds = timed(work)
        sim.post("/sim/options", {"latency": 0})
        return seconds

    cancel_all()  # what the measurements before have left
    account = BrokerAccount.objects.get()
    for count in (25, 500):
        rest(count)
        least = slowly(floor)
        cancel_all()
        rest(count)
        alone = slowly(cancel_all)
        rest(count)
        with Listening(account):
            until(lambda: listeners(sim) == 1)
            streamed = slowly(cancel_all)
        print(  # noqa: T201
            f"{count} orders cancelled, broker at 100 ms: {alone:.2f} s, with the stream listening "
            f"{streamed:.2f} s; DELETE and list {least:.2f} s, ratio {alone / least:.1f}"
        )
