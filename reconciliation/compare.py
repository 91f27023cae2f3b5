"""Compares two sets of positions. Pure: the same facts twice give the same differences."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from reconciliation.models import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One symbol on which book and broker disagree; shares are signed."""

    kind: Kind
    symbol: str
    local_qty: Decimal
    broker_qty: Decimal

    @property
    def difference(self) -> Decimal:
        return self.broker_qty - self.local_qty


def compare(book: Mapping[str, Decimal], broker: Mapping[str, Decimal]) -> list[Found]:
    """Every symbol whose shares differ, in alphabetical order.

    A symbol absent from a side counts as zero there, so `broker` must be a complete answer.
    """
    found = []
    for symbol in sorted(book.keys() | broker.keys()):
        ours = book.get(symbol, Decimal(0))
        theirs = broker.get(symbol, Decimal(0))
        if ours == theirs:
            continue
        kind = Kind.ZOMBIE if not theirs else Kind.ORPHAN if not ours else Kind.QUANTITY
        found.append(Found(kind=kind, symbol=symbol, local_qty=ours, broker_qty=theirs))
    return found
