"""A slow broker may not take every thread: what is beyond its places is answered at once."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection

from orders.models import Order
from orders.sync import ensure_open_book
from ordinis.accounts.models import BrokerAccount
from tests.conftest import Api, quote, sent
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_orders_beyond_the_places_are_refused_at_once_and_nothing_of_them_is_stored(
    sim: SimulatorServer, api: Api, order: MakeOrder, account: BrokerAccount
) -> None:
    ensure_open_book(account)
    quote(sim, "TSLA", "260")
    post = {"method": "POST", "path": "/v2/orders", "kind": "delay_after", "seconds": 2}
    sim.post("/sim/faults", [{**post, "count": 28}])
    together = Barrier(32)

    def send(number: int) -> tuple[int, str, float]:
        body = order(reference_price=None, limit_price=f"24{number % 10}.{number:02}")
        try:
            together.wait()
            started = time.monotonic()
            answer = api.post("/orders", body)
            return answer.status_code, answer.json().get("code", ""), time.monotonic() - started
        finally:
            connection.close()

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(send, range(32)))

    assert Counter(code for code, _, _ in answers) == {201: 28, 503: 4}
    assert {name for _, name, _ in answers if name} == {"busy"}
    assert max(seconds for code, _, seconds in answers if code == 503) < 2
    assert Order.objects.count() == len(sent(sim)) == 28
