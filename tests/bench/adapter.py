"""What the adapter adds to a bare call to the broker."""

from typing import Any

from tests.bench.measure import beside, timed

ROUNDS, WARM_UP = 300, 30


def measure(sim: Any) -> None:
    """What the adapter adds to the bare call, retries, budget and parsing included."""
    import requests

    from ordinis.broker.alpaca import AlpacaBroker

    broker = AlpacaBroker(url=sim.url, key_id="bench", secret_key="bench", timeout=5)
    session = requests.Session()
    session.trust_env = False
    session.headers.update({"APCA-API-KEY-ID": "bench", "APCA-API-SECRET-KEY": "bench"})

    def raw() -> None:
        session.get(f"{sim.url}/v2/account", timeout=5).json()

    def adapted() -> None:
        broker.account()

    own, floor = [], []
    for _ in range(WARM_UP + ROUNDS):
        own.append(timed(adapted))
        floor.append(timed(raw))
    beside("adapter's account()", own[WARM_UP:], "the raw HTTP call", floor[WARM_UP:])
