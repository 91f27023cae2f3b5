"""Moving prices: a random walk that comes out the same for a seed and a number of ticks.

Each tick draws from a generator of its own, made of the seed and the tick's number, so that a
restart continues the walk without storing a generator's state. Must never use floats for a price.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from ordinis.simulator.symbols import Asset, Listing

_CENT = Decimal("0.01")
_FINE = Decimal("0.000001")
_MILLION = Decimal(1_000_000)
_HALF_SPREAD = Decimal("0.0001")  # of the price, one cent at least between bid and ask
_PULL = Decimal("0.0005")  # back to the anchor, so that a long demo stays plausible
_WIDEST_STEP = 400  # millionths of the price in one tick


@dataclass(frozen=True, slots=True)
class Quote:
    """Best bid and ask, and the price of the last trade, in dollars."""

    bid: Decimal
    ask: Decimal
    last: Decimal


@dataclass(slots=True)
class _Walk:
    middle: Decimal
    anchor: Decimal
    quote: Quote
    close: Decimal  # the last price of the day before


def _quote_around(middle: Decimal) -> Quote:
    tick = _CENT if middle >= 1 else Decimal("0.0001")
    bid = (middle * (1 - _HALF_SPREAD)).quantize(tick, ROUND_HALF_UP)
    ask = max(bid + tick, (middle * (1 + _HALF_SPREAD)).quantize(tick, ROUND_HALF_UP))
    return Quote(bid, ask, middle.quantize(tick, ROUND_HALF_UP))


class Prices:
    """The quotes of every listed symbol."""

    def __init__(self, seed: int, listing: Listing) -> None:
        self.seed = seed
        self.ticks = 0
        self._walks: dict[str, _Walk] = {}
        for asset in listing:
            self.add(asset)

    def add(self, asset: Asset) -> None:
        price = asset.start_price
        self._walks[asset.symbol] = _Walk(price, price, _quote_around(price), price)

    def __getitem__(self, symbol: str) -> Quote:
        return self._walks[symbol].quote

    def set(self, symbol: str, bid: Decimal, ask: Decimal) -> None:
        """Put a quote in place; the walk goes on from its middle and stays near it."""
        middle = (bid + ask) / 2
        last = middle.quantize(_CENT if middle >= 1 else Decimal("0.0001"), ROUND_HALF_UP)
        close = self._walks[symbol].close
        self._walks[symbol] = _Walk(middle, middle, Quote(bid, ask, last), close)

    def lastday(self, symbol: str) -> Decimal:
        """The price at the last close."""
        return self._walks[symbol].close

    def mark_close(self) -> None:
        for walk in self._walks.values():
            walk.close = walk.quote.last

    def split(self, symbol: str, ratio: Decimal) -> None:
        """So many shares for each one there was: every price falls by as much."""
        walk = self._walks[symbol]
        close = (walk.close / ratio).quantize(_FINE)
        middle = (walk.middle / ratio).quantize(_FINE)
        self._walks[symbol] = _Walk(middle, middle, _quote_around(middle), close)

    def tick(self) -> None:
        """Move every price once."""
        self.ticks += 1
        draw = random.Random(self.seed * 1_000_003 + self.ticks).randint
        for walk in self._walks.values():
            step = walk.middle * draw(-_WIDEST_STEP, _WIDEST_STEP) / _MILLION
            pull = (walk.anchor - walk.middle) * _PULL
            walk.middle = (walk.middle + step + pull).quantize(_FINE)
            walk.quote = _quote_around(walk.middle)

    def dump(self) -> dict[str, Any]:
        """What a restart needs."""
        return {
            "seed": self.seed,
            "ticks": self.ticks,
            "walks": {
                symbol: [
                    str(part) for part in (w.middle, w.anchor, w.quote.bid, w.quote.ask, w.close)
                ]
                for symbol, w in self._walks.items()
            },
        }

    def load(self, stored: Mapping[str, Any]) -> None:
        self.seed, self.ticks = stored["seed"], stored["ticks"]
        for symbol, parts in stored["walks"].items():
            middle, anchor, bid, ask, *close = map(Decimal, parts)
            self.set(symbol, bid, ask)
            walk = self._walks[symbol]
            walk.middle, walk.anchor = middle, anchor
            walk.close = close[0] if close else walk.close
