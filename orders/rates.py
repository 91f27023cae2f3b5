"""How many orders a strategy, and its account, have sent within the last minute (SPEC K4), counted
in the database. Reads only.

What was denied counts for the strategy, which is to stop asking, and not for the account: one that
loops must not hold up the others. Orders that may only reduce are counted by themselves: no loop of
buys bars the way out. A person's own orders (`OPERATOR`) count for nobody.
"""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now

from orders import statuses
from orders.errors import OrderSubmissionError
from orders.models import Order
from ordinis.accounts.models import OPERATOR, Strategy
from risk.limits import Limits

_MINUTE = timedelta(minutes=1)
_TAKEN: Final = ~Q(status=statuses.DENIED)


@dataclass(frozen=True, slots=True)
class Rates:
    """Orders of the last minute: the strategy's, and all of its account."""

    strategy: int = 0
    account: int = 0


class RateLimited(OrderSubmissionError):
    """More orders than the rate allows; `retry_after` is in seconds."""

    def __init__(self, whose: str, limit: int, retry_after: int) -> None:
        super().__init__(
            "rate_limited",
            f"{whose} has sent {limit} orders within a minute, as many as max_orders_per_minute "
            f"allows. Nothing was stored or sent: send it again in {retry_after} s.",
        )
        self.retry_after = retry_after


def of(strategy: Strategy, *, reduce_only: bool = False) -> Rates:
    if strategy.name == OPERATOR:
        return Rates()
    counts = _lately(strategy, reduce_only).aggregate(
        account=Count("pk", filter=_TAKEN), strategy=Count("pk", filter=Q(strategy=strategy))
    )
    return Rates(counts["strategy"], counts["account"])


def limited(
    strategy: Strategy, limits: Limits, rates: Rates, *, reduce_only: bool = False
) -> RateLimited | None:
    """Why one more order would be too many, None where it would not."""
    for whose, count, limit, which in (
        ("strategy", rates.strategy, limits.max_orders_per_minute, Q(strategy=strategy)),
        ("account", rates.account, limits.account_orders_per_minute, _TAKEN),
    ):
        if count >= limit:
            wait = _free_in(_lately(strategy, reduce_only).filter(which), limit)
            return RateLimited(f"The {whose}", limit, wait)
    return None


def check(strategy: Strategy, limits: Limits, *, reduce_only: bool = False) -> Rates:
    """Raises RateLimited when one more order would be too many."""
    rates = of(strategy, reduce_only=reduce_only)
    if error := limited(strategy, limits, rates, reduce_only=reduce_only):
        raise error
    return rates


def _free_in(rows: QuerySet[Order], limit: int) -> int:
    """Seconds until the oldest of as many as are allowed is a minute old."""
    newest = rows.order_by("-created_at").annotate(now=Now())
    oldest = newest.values_list("created_at", "now")[limit - 1 : limit]
    waits = [_MINUTE - (now - created_at) for created_at, now in oldest]
    seconds = math.ceil(max((wait.total_seconds() for wait in waits), default=0))
    return max(seconds, 1)


def _lately(strategy: Strategy, reduce_only: bool) -> QuerySet[Order]:
    """Orders that somebody asked for; exits come with theirs."""
    asked_for = Q(parent=None) | Q(role=Order.Role.DEPENDENT)
    rows = Order.objects.filter(
        asked_for,
        account_id=strategy.account_id,
        reduce_only=reduce_only,
        created_at__gt=Now() - _MINUTE,
    )
    return rows.exclude(strategy__name=OPERATOR).order_by()
