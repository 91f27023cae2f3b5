"""Strategy programs that spend the same account's money at once, in processes of their own.

`Company` starts the processes and has them play one plan after the other;
`python -m tests.orders.spenders FOLDER NUMBER` is one of them. Each spender has a thread and a
database connection of its own, and sends its orders to the real HTTP API of its process.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
_BROKER_TIMEOUT = 20  # seconds: two cores are shared by all of this


class Spender(TypedDict):
    """One strategy program: its token, and the orders that it sends one after the other."""

    token: str
    orders: list[dict[str, str]]


class Answer(NamedTuple):
    """To one order: the status, the problem's code (else empty), and how long it took."""

    status: int
    code: str
    seconds: float


class Company:
    """So many processes; made once, because each takes seconds to start."""

    def __init__(self, folder: Path, processes: int) -> None:
        from tests import other_process
        from tests.waiting import until

        self._folder, self._plans = folder, count()
        self._processes = [
            other_process.start(
                "tests.orders.spenders",
                *(str(folder), str(number)),
                broker="http://127.0.0.1:9",  # each plan names its own
                ORDINIS_BROKER_TIMEOUT=str(_BROKER_TIMEOUT),
            )
            for number in range(processes)
        ]
        until(lambda: len(list(folder.glob("up-*"))) == processes, seconds=60)

    def play(self, spenders: Sequence[Spender], *, broker: str) -> list[Answer]:
        """All spenders at once, shared out evenly; all answers, when the last one is there."""
        shares = [spenders[first :: len(self._processes)] for first in range(len(self._processes))]
        _hand_over(self._folder / f"plan-{next(self._plans)}", {"broker": broker, "shares": shares})
        lines = []
        for process in self._processes:
            assert process.stdout is not None
            lines.append(process.stdout.readline())
        return [Answer(*answer) for line in lines for answer in json.loads(line)]

    def close(self) -> None:
        _hand_over(self._folder / f"plan-{next(self._plans)}", None)
        assert [process.wait(20) for process in self._processes] == [0] * len(self._processes)


def _hand_over(path: Path, plan: Any) -> None:
    """Whole or not at all: the processes look for it all the time."""
    written = path.with_suffix(".new")
    written.write_text(json.dumps(plan))
    written.rename(path)


def _spend(spender: Spender) -> list[Answer]:
    from django.db import connection
    from django.test import Client

    client = Client(
        SERVER_NAME="localhost",
        headers={"Authorization": f"Bearer {spender['token']}"},
        raise_request_exception=False,  # a fault of ours is a 500, as any caller would see it
    )
    answers = []
    try:
        for body in spender["orders"]:
            began = time.monotonic()
            answer = client.post("/api/v1/orders", body, content_type="application/json")
            took = time.monotonic() - began
            told = answer.json() if "json" in answer.headers.get("Content-Type", "") else {}
            answers.append(Answer(answer.status_code, str(told.get("code", "")), took))
    finally:
        connection.close()
    return answers


def main(folder: Path, number: int) -> None:
    django.setup()
    import logging

    from django.conf import settings

    logging.disable(logging.CRITICAL)
    (folder / f"up-{number}").touch()
    for plan in map(_next_plan, (folder / f"plan-{each}" for each in count())):
        if plan is None:
            return
        settings.BROKER_URL = plan["broker"]
        share = plan["shares"][number]
        with ThreadPoolExecutor(max(len(share), 1)) as pool:
            answers = [answer for each in pool.map(_spend, share) for answer in each]
        print(json.dumps(answers), flush=True)  # noqa: T201


def _next_plan(path: Path) -> Any:
    while not path.exists():
        time.sleep(0.02)
    return json.loads(path.read_text())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
