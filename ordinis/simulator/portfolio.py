"""Cash, positions and margin, kept up to date one symbol at a time.

The totals move with each symbol that moves instead of being added up anew, so that an account
with a thousand positions answers as fast as an empty one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from ordinis.simulator.order import NANO_SHARE
from ordinis.simulator.symbols import Asset

_CENT = Decimal("0.01")
_ZERO = Decimal(0)
_INTRADAY_RATE = Decimal("0.25")
_LEAST_FOR_MARGIN = Decimal(2_000)  # of equity; below it the account is one of cash
# From this much debt, a position of that share of all is held at the higher rate.
_CONCENTRATED, _CONCENTRATED_RATE = Decimal("0.7"), Decimal("0.5")
_DEBIT = Decimal(100_000)
_RESTRICTED = 6  # times the equity in positions, and only closing is allowed


@dataclass(frozen=True, slots=True)
class Position:
    """Signed: a short position has a negative quantity."""

    symbol: str
    qty: Decimal
    average_price: Decimal


@dataclass(frozen=True, slots=True)
class _Worth:
    """What one position adds to each total."""

    long: Decimal = _ZERO
    short: Decimal = _ZERO
    initial: Decimal = _ZERO
    maintenance: Decimal = _ZERO

    def __add__(self, other: "_Worth") -> "_Worth":
        return _Worth(
            self.long + other.long,
            self.short + other.short,
            self.initial + other.initial,
            self.maintenance + other.maintenance,
        )

    def __neg__(self) -> "_Worth":
        return _Worth(-self.long, -self.short, -self.initial, -self.maintenance)


def maintenance_rate(asset: Asset, price: Decimal, *, short: bool) -> Decimal:
    """Alpaca's table of 2026-09, as a share of the market value."""
    if not asset.marginable and not short:
        return Decimal(1)
    if short:
        if price < 5:
            return max(Decimal("2.5") / price, Decimal(1))
        return max(Decimal(5) / price, Decimal("0.3"))
    if asset.leverage >= 2:
        return Decimal("0.75" if asset.leverage >= 3 else "0.5")
    if price < Decimal("2.5"):
        return Decimal(1)
    return Decimal("0.5" if price < 6 else "0.3")


class Portfolio:
    """One margin account. Money is in dollars and moves in whole cents."""

    def __init__(self, cash: Decimal) -> None:
        self.cash = cash
        self.last_equity = cash  # at the last close, as far as this account knows
        self.last_maintenance_margin = _ZERO
        self.pinned_buying_power: Decimal | None = None
        self.reserved = _ZERO  # by open orders; kept by the venue
        self._positions: dict[str, Position] = {}
        self._worths: dict[str, _Worth] = {}
        self._total = _Worth()

    def __iter__(self) -> Iterator[Position]:
        return iter(self._positions.values())

    def get(self, symbol: str) -> Position | None:
        return self._positions.get(symbol)

    def qty(self, symbol: str) -> Decimal:
        position = self._positions.get(symbol)
        return position.qty if position else _ZERO

    def set(self, symbol: str, qty: Decimal, average_price: Decimal) -> None:
        """Put a position in place; call `revalue` after it."""
        if qty:
            self._positions[symbol] = Position(symbol, qty, average_price)
        else:
            self._positions.pop(symbol, None)

    def trade(self, symbol: str, qty: Decimal, price: Decimal) -> Decimal:
        """Book an execution, positive quantities bought; the position after it.

        The average price is weighted by what is added and stays when something is taken off.
        """
        before = self._positions.get(symbol)
        held = before.qty if before else _ZERO
        average = before.average_price if before else _ZERO
        after = held + qty
        if held * qty >= 0:
            average = ((held * average + qty * price) / after).quantize(NANO_SHARE)
        elif held * after < 0:
            average = price  # turned round: what is left was traded at this price
        self.cash -= (qty * price).quantize(_CENT)
        self.set(symbol, after, average)
        return after

    def revalue(self, asset: Asset, price: Decimal) -> None:
        """Bring the totals up to date with one symbol's quantity and price."""
        old = self._worths.pop(asset.symbol, None)
        if old is not None:
            self._total += -old
        position = self._positions.get(asset.symbol)
        if position is None:
            return
        value = position.qty * price
        rate = maintenance_rate(asset, price, short=value < 0)
        maintenance = abs(value) * rate
        worth = _Worth(
            long=max(value, _ZERO),
            short=min(value, _ZERO),
            initial=max(abs(value) / (2 if asset.marginable else 1), maintenance),
            maintenance=maintenance,
        )
        self._worths[asset.symbol] = worth
        self._total += worth

    @property
    def long_value(self) -> Decimal:
        return self._total.long

    @property
    def short_value(self) -> Decimal:
        return self._total.short

    @property
    def initial_margin(self) -> Decimal:
        return self._total.initial

    @property
    def maintenance_margin(self) -> Decimal:
        return self._total.maintenance + self._for_concentration()

    def _for_concentration(self) -> Decimal:
        """What one position that outweighs the rest must be held at beyond its own rate."""
        if self.cash > -_DEBIT:
            return _ZERO
        largest = max(self._worths.values(), key=lambda it: it.long - it.short, default=_Worth())
        value, all_of_it = largest.long - largest.short, self.gross_value
        if not all_of_it or value < _CONCENTRATED * all_of_it:
            return _ZERO
        return max(value * _CONCENTRATED_RATE - largest.maintenance, _ZERO)

    @property
    def gross_value(self) -> Decimal:
        """Of all positions, short ones counted as if they were long."""
        return self._total.long - self._total.short

    @property
    def equity(self) -> Decimal:
        return self.cash + self._total.long + self._total.short

    @property
    def is_restricted(self) -> bool:
        """Whether there is so much in positions that only closing is allowed."""
        return self.gross_value > 0 and self.gross_value >= _RESTRICTED * self.equity

    @property
    def may_short(self) -> bool:
        return self.equity >= _LEAST_FOR_MARGIN

    def multiplier(self, most: int) -> int:
        """How many times the equity may be in positions: 1, 2 or 4."""
        return most if self.may_short else 1

    def cash_buying_power(self) -> Decimal:
        """For what cannot be bought on margin."""
        return max(self.cash - self.reserved, _ZERO)

    def buying_power(self, margin: str, most: int) -> Decimal:
        """Four times what the margin leaves of the equity, less what open orders hold.

        Twice what the initial margin leaves, or the cash alone, where the multiplier is less.
        Pinned, it is that figure and nothing else.
        """
        if self.pinned_buying_power is not None:
            return self.pinned_buying_power
        multiplier = self.multiplier(most)
        if multiplier == 1:
            return self.cash_buying_power().quantize(_CENT, "ROUND_DOWN")
        if multiplier == 2:
            held = self._total.initial
        elif margin == "maintenance":
            held = self.maintenance_margin
        else:
            held = self.gross_value * _INTRADAY_RATE
        free = multiplier * max(self.equity - held, _ZERO) - self.reserved
        return max(free, _ZERO).quantize(_CENT, "ROUND_DOWN")
