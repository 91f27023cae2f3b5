"""Of each account: how old the broker's figures are, its request limit, trading state, breaker."""

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
)

from ordinis.accounts.models import RequestBudget
from ordinis.metrics.scrape import Scrape, gauge
from risk import trading
from risk.models import TradingControl
from risk.states import STRICTNESS


def collect(scrape: Scrape) -> Iterator[Metric]:
    yield _broker(scrape)
    yield from _requests(scrape)
    yield from _trading(scrape)


def _broker(scrape: Scrape) -> Metric:
    """Not the figures themselves: whoever reaches the page needs no login."""
    age = gauge("broker_figures_age_seconds", "Since the broker last told the account's figures.")
    for account in scrape.accounts:
        if account.as_of is not None:
            age.add_metric([account.name], scrape.age(account.as_of))
    return age


def _requests(scrape: Scrape) -> Iterator[Metric]:
    """How much of the broker's request limit is left, as it was last told."""
    limit = GaugeMetricFamily(
        "ordinis_broker_requests_limit", "Requests a window.", labels=["account"]
    )
    remaining = GaugeMetricFamily(
        "ordinis_broker_requests_remaining",
        "Requests left of the window when it was last short.",
        labels=["account"],
    )
    held_back = CounterMetricFamily(
        "ordinis_broker_requests_held_back",
        "Requests that had to wait for more urgent ones.",
        labels=["account"],
    )
    for row in RequestBudget.objects.filter(account__in=scrape.keys).select_related("account"):
        label = [row.account.name]
        limit.add_metric(label, row.limit)
        remaining.add_metric(label, row.remaining)
        held_back.add_metric(label, row.held_back)
    yield from (limit, remaining, held_back)


def _trading(scrape: Scrape) -> Iterator[Metric]:
    state = StateSetMetricFamily(
        "ordinis_trading_state",
        "What orders may do now: the strictest of what a person set, the breaker and the books.",
        labels=["account"],
    )
    breaker = StateSetMetricFamily(
        "ordinis_breaker_state", "The circuit breaker.", labels=["account"]
    )
    now = trading.current_of_all()
    for account in scrape.accounts:
        found = now[account.pk]
        state.add_metric([account.name], {each: each == found.state for each in STRICTNESS})
        breaker.add_metric(
            [account.name],
            {each: each == found.breaker for each in TradingControl.Breaker.values},
        )
    yield from (state, breaker)
