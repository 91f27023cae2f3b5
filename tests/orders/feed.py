"""Writers and readers of the event feed, each in a process of its own (see test_events.py).

`python -m tests.orders.feed write STRATEGY SEED ORDERS` makes orders in transactions that stay open
for different times and are sometimes rolled back. `read TOKEN LAST` follows the feed over the API
until the order LAST is told: it prints a line when it begins, and in the end what it was told.
`die STRATEGY during|after` reads and is killed before it could answer.
"""

import json
import os
import random
import signal
import sys
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")


def write(strategy_id: int, seed: int, orders: int) -> None:
    from django.db import connection, transaction

    from orders import lifecycle, statuses
    from orders.lifecycle import Origin, Source
    from orders.models import Order
    from ordinis.accounts.models import Strategy

    strategy = Strategy.objects.get(pk=strategy_id)
    chance = random.Random(seed)
    origin = Origin(Source.API, "test")
    for number in range(orders):
        order = Order(
            id=uuid4(),
            account_id=strategy.account_id,
            strategy=strategy,
            client_order_id=f"w{seed}-{number}",
            fingerprint="f" * 64,
            symbol="KO",
            side="buy",
            qty=Decimal(1),
            type="limit",
            time_in_force="day",
            limit_price=Decimal(60),
            correlation_id="test",
            submitted_at=datetime.now(UTC),
        )
        with transaction.atomic(), connection.cursor() as cursor:
            lifecycle.record_intent(order, statuses.SUBMITTING, origin)
            # Its ids are drawn now, and seen by others only after this.
            cursor.execute("SELECT pg_sleep(%s)", [chance.choice((0, 0, 0.001, 0.01, 0.05))])
            undone = chance.random() < 0.2
            transaction.set_rollback(undone)
        if not undone:
            lifecycle.transition(order.pk, statuses.UNRESOLVED, origin)
            lifecycle.transition(order.pk, statuses.FAILED, origin)


def read(token: str, last: str) -> None:
    from django.test import Client

    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})
    after, told, client_order_id = 0, [], ""
    wait = 0  # for the first answer, from which on it follows
    while client_order_id != last:
        answer = client.get("/api/v1/events", {"after": after, "wait": wait}).json()
        if not wait:
            print("following")  # noqa: T201
            wait = 10
        for event in answer["events"]:
            client_order_id = event["client_order_id"]
            told.append((event["seq"], client_order_id, event["to"]))
        after = answer["next"]
    print(json.dumps(told))  # noqa: T201


def die(strategy_id: int, when: str) -> None:
    from django.db import transaction

    from orders import events

    if when == "during":
        transaction.atomic().__enter__()
    assert events.read(strategy_id, 0)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    django.setup()
    match sys.argv[1:]:
        case ["write", strategy_id, seed, orders]:
            write(int(strategy_id), int(seed), int(orders))
        case ["read", token, last]:
            read(token, last)
        case ["die", strategy_id, when]:
            die(int(strategy_id), when)
