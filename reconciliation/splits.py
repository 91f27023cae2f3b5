"""Recognises a split: the shares changed by a simple ratio and what they cost did not. Pure."""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from reconciliation.facts import BookPosition, BrokerPosition, CorporateAction

# New shares for old ones, and the reverse, as they are made.
_RATIOS = frozenset(
    {Fraction(n) for n in range(2, 101)} | {Fraction(3, 2), Fraction(4, 3), Fraction(5, 4)}
)
_KNOWN = _RATIOS | {1 / ratio for ratio in _RATIOS}
# Of the cost: averages are rounded.
_COST_MAY_DIFFER = Decimal("0.01")


def ratio_of(ours: BookPosition, theirs: BrokerPosition) -> Fraction | None:
    """New shares for each old one; None where it was no split.

    The shares must fit the ratio but for less than one that was paid out, and the cost of the
    whole position must be what it was: shares that were bought cost something.
    """
    if not ours.qty or not theirs.qty or (ours.qty > 0) != (theirs.qty > 0):
        return None
    if ours.average_price is None or theirs.average_price is None:
        return None
    if not ours.average_price or not theirs.average_price:
        return None
    by_price = Fraction(ours.average_price) / Fraction(theirs.average_price)
    ratio = min(_KNOWN, key=lambda known: abs(known - by_price) / known)
    if abs(ratio - by_price) / ratio > Fraction(_COST_MAY_DIFFER):
        return None
    due = abs(Fraction(ours.qty)) * ratio
    paid_out = due - abs(Fraction(theirs.qty))
    if paid_out == 0 or (0 < paid_out < 1 and abs(theirs.qty) == int(due)):
        return ratio
    return None


def is_told(actions: Sequence[CorporateAction], ours: BookPosition, theirs: BrokerPosition) -> bool:
    """Whether the broker's activities name a split of exactly these shares."""
    shares = theirs.qty - ours.qty
    return any(action.kind == "SPLIT" and action.qty == shares for action in actions)


def words(ratio: Fraction) -> str:
    """2:1, 1:10, new for old."""
    return f"{ratio.numerator}:{ratio.denominator}"
