"""`/metrics` in Prometheus' text form, read from the tables at each scrape.

Everything comes from the database, so that the figures are right with any number of processes.
Never carries a symbol or an order id as a label.
"""

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ordinis.accounts.models import RequestBudget


class _RequestBudget(Collector):
    """How much of the broker's request limit is left, as it was last told."""

    def collect(self) -> Iterator[Metric]:
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
        for row in RequestBudget.objects.select_related("account"):
            label = [row.account.name]
            limit.add_metric(label, row.limit)
            remaining.add_metric(label, row.remaining)
            held_back.add_metric(label, row.held_back)
        yield from (limit, remaining, held_back)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RequestBudget())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
