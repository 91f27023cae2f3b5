"""How an amount is compared with a share of equity: in one place for every limit of that kind."""

from decimal import Decimal
from typing import Final

from ordinis.numbers import plain
from risk.checks.values import ZERO, Finding

_STEP: Final = Decimal("0.0001")
# What per cent of no equity is: more than any limit.
_ALL: Final = Decimal(1_000_000)


def of_equity(
    *, code: str, what: str, before: Decimal, after: Decimal, equity: Decimal, limit: Decimal
) -> Finding:
    """Dollars `before` and `after` the order against a limit in per cent. One that adds nothing
    passes, also where the limit is broken already."""
    ok = after <= before or (equity > 0 and after * 100 <= equity * limit)
    actual = percent(after, equity)
    return Finding(
        code=code,
        ok=ok,
        on_figures=True,
        limit=limit,
        actual=actual,
        before=percent(before, equity),
        message=""
        if ok
        else (
            f"{what} ${after:,.2f}, {actual:.2f} % of the equity of ${equity:,.2f}; {code} allows "
            f"{plain(limit)} %. Lower the quantity, or close something first."
        ),
    )


def percent(amount: Decimal, equity: Decimal) -> Decimal:
    if equity <= 0:
        return _ALL if amount else ZERO
    share = amount * 100 / equity
    return _ALL if share >= _ALL else share.quantize(_STEP)
