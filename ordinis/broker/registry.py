"""Which broker an account's orders go to: one adapter a process, from the environment."""

import functools
import os

from django.conf import settings

from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.errors import BrokerRefused
from ordinis.broker.port import Broker


def broker_for(name: str, mode: str) -> Broker:
    """The adapter for an account's broker and mode. Raises BrokerRefused when this process is
    set up for another one: an account's orders must never reach a broker that is not its own."""
    if (name, mode) != (settings.ORDINIS_BROKER, settings.BROKER_MODE):
        raise BrokerRefused(
            f"This account trades at {name!r} ({mode}), but Ordinis was started for "
            f"{settings.ORDINIS_BROKER!r} ({settings.BROKER_MODE}). Set ORDINIS_BROKER and "
            "APCA_API_BASE_URL to the account's broker."
        )
    return _adapter(settings.BROKER_URL, settings.BROKER_TIMEOUT)


def credentials() -> tuple[str, str]:
    """Key id and secret from the environment. The simulator accepts any."""
    key_id = os.environ.get("APCA_API_KEY_ID", "")
    secret_key = os.environ.get("APCA_API_SECRET_KEY", "")
    if settings.ON_SIMULATOR:
        return key_id or "simulator", secret_key or "simulator"
    if not (key_id and secret_key):
        raise BrokerRefused(
            "APCA_API_KEY_ID and APCA_API_SECRET_KEY are not set. Put your Alpaca keys into the "
            "environment, or set ORDINIS_BROKER=simulator."
        )
    return key_id, secret_key


@functools.cache
def _adapter(url: str, timeout: float) -> Broker:
    key_id, secret_key = credentials()
    return AlpacaBroker(url=url, key_id=key_id, secret_key=secret_key, timeout=timeout)
