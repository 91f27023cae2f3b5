"""How many orders a strategy, and its account, have sent within the last minute (SPEC K4), counted
in the database. Reads only.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Count, Q, QuerySet
from django.db.models.functions import Now

from orders.errors import OrderSubmissionError
from orders.models import Order
from ordinis.accounts.models import Strategy
from risk.limits import Limits

_MINUTE = timedelta(minutes=1)


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


def of(strategy: Strategy) -> Rates:
    counts = _lately(strategy).aggregate(
        account=Count("pk"), strategy=Count("pk", filter=Q(strategy=strategy))
    )
    return Rates(counts["strategy"], counts["account"])


def limited(strategy: Strategy, limits: Limits, rates: Rates) -> RateLimited | None:
    """Why one more order would be too many, None where it would not."""
    if rates.strategy >= limits.max_orders_per_minute:
        return _limited(
            strategy, "The strategy", limits.max_orders_per_minute, Q(strategy=strategy)
        )
    if rates.account >= limits.account_orders_per_minute:
        return _limited(strategy, "The account", limits.account_orders_per_minute, Q())
    return None


def check(strategy: Strategy, limits: Limits) -> Rates:
    """Raises RateLimited when one more order would be too many."""
    rates = of(strategy)
    if error := limited(strategy, limits, rates):
        raise error
    return rates


def _limited(strategy: Strategy, whose: str, limit: int, which: Q) -> RateLimited:
    """The place is free again when the oldest of as many as are allowed is a minute old."""
    rows = _lately(strategy).filter(which).order_by("-created_at").annotate(now=Now())
    oldest = rows.values_list("created_at", "now")[limit - 1 : limit]
    waits = [_MINUTE - (now - created_at) for created_at, now in oldest]
    seconds = math.ceil(max((wait.total_seconds() for wait in waits), default=0))
    return RateLimited(whose, limit, max(seconds, 1))


def _lately(strategy: Strategy) -> QuerySet[Order]:
    """Orders that somebody asked for; exits come with theirs."""
    return Order.objects.filter(
        account_id=strategy.account_id, parent=None, created_at__gt=Now() - _MINUTE
    ).order_by()
