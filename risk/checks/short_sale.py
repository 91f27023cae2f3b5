"""SPEC K3: a short sale is for whole shares that the broker lends, and only with a price to reserve
by: the broker holds 1.03 times the ask (ALPACA.md section 4). Whether it is allowed at all, and
has the money, is judged elsewhere.
"""

from collections.abc import Iterator
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent, sells_short
from risk.limits import Limits

LEAST_EQUITY = Decimal(2000)  # dollars, the broker's own rule
COLLAR = Decimal("1.03")


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    if not sells_short(intent, context) or not limits.allow_short or not intent.needs:
        return
    yield from _rule(
        "short_not_whole",
        intent.qty % 1 == 0,
        "Fractions of a share can't be sold short. Round qty.",
    )
    yield from _rule(
        "account_may_not_short",
        context.account.may_short,
        "The broker does not let this account sell short. Ask the broker, or see its setting "
        "no_shorting.",
    )
    lends = context.asset is not None and context.asset.shortable
    yield from _rule(
        "not_shortable",
        lends,
        f"The broker does not say that {intent.symbol} can be sold short. Choose another symbol.",
    )
    yield from _rule(
        "reference_price_required",
        intent.ask is not None,
        "A short sale needs a reference_price, the ask that you see: the broker holds 1.03 times "
        "the ask. Give one.",
    )
    equity = context.account.equity
    yield Finding(
        code="equity_too_small_to_short",
        ok=equity >= LEAST_EQUITY,
        limit=LEAST_EQUITY,
        actual=equity,
        message=""
        if equity >= LEAST_EQUITY
        else f"Selling short needs ${LEAST_EQUITY:,} of equity; there is ${equity:,.2f}.",
    )


def _rule(code: str, ok: bool, message: str) -> Iterator[Finding]:
    yield Finding(
        code=code, ok=ok, limit=ZERO, actual=Decimal(not ok), message="" if ok else message
    )
