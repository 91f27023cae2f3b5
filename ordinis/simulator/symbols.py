"""The instruments that can be traded, with a plausible price to start from.

Holds what Alpaca's assets endpoint tells of them and nothing that moves.
"""

import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cache
from typing import Any

_NAMESPACE = uuid.UUID("6f0f3f1e-51a1-4b7e-9d5c-0a1b2c3d4e5f")

# symbol, exchange, start price, name
_SHARES = """
AAPL|NASDAQ|232.10|Apple Inc.
ABBV|NYSE|191.40|AbbVie
ADBE|NASDAQ|356.70|Adobe Inc.
AMD|NASDAQ|163.20|Advanced Micro Devices
AMZN|NASDAQ|223.80|Amazon
AVGO|NASDAQ|304.90|Broadcom
BA|NYSE|227.60|Boeing
BAC|NYSE|47.30|Bank of America
BRK.B|NYSE|478.20|Berkshire Hathaway
CAT|NYSE|419.50|Caterpillar Inc.
COST|NASDAQ|948.10|Costco
CRM|NYSE|246.30|Salesforce
CVX|NYSE|152.80|Chevron Corporation
DIS|NYSE|114.60|Walt Disney Company (The)
GE|NYSE|271.90|GE Aerospace
GOOGL|NASDAQ|203.40|Alphabet Inc. (Class A)
GS|NYSE|726.30|Goldman Sachs
HD|NYSE|398.20|Home Depot (The)
INTC|NASDAQ|24.80|Intel
JNJ|NYSE|172.60|Johnson & Johnson
JPM|NYSE|291.40|JPMorgan Chase
KO|NYSE|70.20|Coca-Cola Company (The)
LIN|NASDAQ|472.10|Linde plc
LLY|NYSE|701.20|Lilly (Eli)
MA|NYSE|579.30|Mastercard
META|NASDAQ|769.40|Meta Platforms
MRK|NYSE|84.10|Merck & Co.
MSFT|NASDAQ|522.60|Microsoft
NEE|NYSE|75.90|NextEra Energy
NFLX|NASDAQ|1231.40|Netflix
NVDA|NASDAQ|182.50|Nvidia
OKE|NYSE|72.40|Oneok
ORCL|NYSE|244.80|Oracle Corporation
PEP|NASDAQ|146.70|PepsiCo
PFE|NYSE|24.90|Pfizer
PG|NYSE|154.30|Procter & Gamble
PLD|NYSE|107.20|Prologis
T|NYSE|28.90|AT&T
TSLA|NASDAQ|250.30|Tesla, Inc.
UNH|NYSE|304.20|UnitedHealth Group
V|NYSE|336.90|Visa Inc.
WMT|NYSE|100.40|Walmart
XOM|NYSE|107.80|ExxonMobil
EPD|NYSE|31.20|Enterprise Products Partners L.P.
ET|NYSE|17.40|Energy Transfer LP
STWD|NYSE|19.80|Starwood Property Trust, Inc.
QQQ|NASDAQ|574.50|Invesco QQQ Trust
SPY|ARCA|638.20|SPDR S&P 500 ETF Trust
"""
_THREEFOLD = """
FNGU|ARCA|25.60|MicroSectors FANG+ 3X Leveraged ETNs
TECL|ARCA|87.66|Direxion Daily Technology Bull 3X Shares
"""


@cache
def _id_of(symbol: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, symbol))


@dataclass(frozen=True, slots=True)
class Asset:
    """One instrument; `leverage` 3 marks a threefold fund, whose margin is 75 %."""

    symbol: str
    exchange: str
    start_price: Decimal
    name: str
    leverage: int = 1
    fractionable: bool = True
    shortable: bool = True
    tradable: bool = True
    marginable: bool = True  # else it is bought with cash alone
    listed_by_hand: bool = False  # while it ran, so that a restart must list it again

    @property
    def id(self) -> str:
        """Always the same for a symbol, so that a restart changes nothing."""
        return _id_of(self.symbol)

    def to_row(self) -> dict[str, Any]:
        return {**asdict(self), "start_price": str(self.start_price)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Asset":
        return cls(**{**row, "start_price": Decimal(row["start_price"])})


def _read(table: str, leverage: int) -> Iterator[Asset]:
    for line in table.strip().splitlines():
        symbol, exchange, price, name = line.split("|")
        yield Asset(symbol, exchange, Decimal(price), name, leverage)


class Listing:
    """The instruments by symbol and by id; a test may list more."""

    def __init__(self) -> None:
        self._by_symbol: dict[str, Asset] = {}
        self._by_id: dict[str, Asset] = {}
        for asset in (*_read(_SHARES, 1), *_read(_THREEFOLD, 3)):
            self.add(asset)

    def add(self, asset: Asset) -> None:
        self._by_symbol[asset.symbol] = asset
        self._by_id[asset.id] = asset

    def get(self, symbol_or_id: str) -> Asset | None:
        return self._by_symbol.get(symbol_or_id.upper()) or self._by_id.get(symbol_or_id)

    def __getitem__(self, symbol: str) -> Asset:
        return self._by_symbol[symbol]

    def __iter__(self) -> Iterator[Asset]:
        return iter(self._by_symbol.values())
