"""The broker's keys, from the environment and nowhere else."""

import os

from django.conf import settings

from ordinis.broker.errors import BrokerRefused


def credentials() -> tuple[str, str]:
    """Key id and secret. The simulator accepts any. Raises BrokerRefused when they are missing."""
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
