"""Calls the heartbeat address while all is well, so that somebody outside hears of it when not.

A service such as healthchecks.io tells people when no call has come for some minutes: the one
alarm that works when this machine is gone. Must never call when anything of `/readyz` fails, nor
fail its job: a missed call is the alarm. The address is a secret.
"""

import logging
import os

import requests

from ordinis.health import check

URL = "ORDINIS_HEARTBEAT_URL"
_TIMEOUT = (3.0, 5.0)  # seconds to connect, and for the answer
log = logging.getLogger("ordinis.alerts")


def call() -> None:
    """One call, if everything is as it should be."""
    address = os.environ.get(URL, "").strip()
    if not address:
        return
    failures = [failure.check for failure in check()]
    if failures:
        log.warning("heartbeat address not called", extra={"failing": ", ".join(failures)})
        return
    try:
        with requests.Session() as http:
            http.trust_env = False
            http.get(address, timeout=_TIMEOUT).raise_for_status()
    except Exception as error:  # its words hold the address
        log.warning("heartbeat address not reached", extra={"error": type(error).__name__})
