"""Which address tells market data. No other host than Alpaca's own, or this very machine, may ever
be given the keys for it.

Pure: knows neither settings nor network.
"""

import re

ALPACA_DATA_URL = "https://data.alpaca.markets"
_ALPACA_TRADING_URLS = ("https://paper-api.alpaca.markets", "https://api.alpaca.markets")
# To the end: `http://127.0.0.1:80@elsewhere/` only begins like an address of this machine.
_THIS_MACHINE = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?(/[\w./-]*)?")


def data_url(broker_url: str, *, given: str = "") -> str | None:
    """Where quotes are asked for: the address that was given, else the one that belongs to the
    trading address; None where there is none. Raises ValueError for a host that must not have the
    keys."""
    if given:
        if given != ALPACA_DATA_URL and not _THIS_MACHINE.fullmatch(given):
            raise ValueError(
                f"The address of market data is {given}, and the keys must not go there. Use "
                f"{ALPACA_DATA_URL} or an address of this machine, or leave it out."
            )
        return given
    if broker_url in _ALPACA_TRADING_URLS:
        return ALPACA_DATA_URL
    return broker_url if _THIS_MACHINE.fullmatch(broker_url) else None
