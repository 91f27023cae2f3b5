"""Judges an order against fresh broker figures. Pure: no clock, no query, no network.

One module a rule. Every check runs and all findings come back, each with its limit and the actual
value; those that were not passed are the violations. Deny when in doubt: where the figures
themselves can't be used, that is the finding.
"""

from risk.checks import (
    account,
    buying_power,
    exposure,
    inputs,
    order_size,
    position,
    positions,
    price,
    quantity,
    rate,
    sector,
    session,
    short_sale,
    symbol,
    trading_state,
    unresolved,
    wash_trade,
)
from risk.checks.values import (
    Context,
    Finding,
    Intent,
    Opposite,
    Violation,
    adds,
    reduces,
    sells_short,
)
from risk.limits import Limits

__all__ = [
    "Context",
    "Finding",
    "Intent",
    "Opposite",
    "Violation",
    "adds",
    "evaluate",
    "reduces",
    "sells_short",
]

_RULES = (
    trading_state,
    account,
    rate,
    symbol,
    session,
    price,
    order_size,
    unresolved,
    wash_trade,
    buying_power,
    quantity,
    short_sale,
    positions,
    position,
    exposure,
    sector,
)


def evaluate(intent: Intent, context: Context, limits: Limits) -> list[Finding]:
    """What every check found; the order may be sent when all are ok."""
    unusable = list(inputs.check(intent, context))
    if unusable:
        return unusable
    return [finding for rule in _RULES for finding in rule.check(intent, context, limits)]
