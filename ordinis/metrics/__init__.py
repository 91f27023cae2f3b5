"""`/metrics` in Prometheus' text form, read from the tables at each scrape.

Everything comes from the database, so that the figures are right with any number of processes.
A scrape asks as many questions for many accounts as for one, and none that reads a whole long
table. Never carries a symbol or an order id as a label.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ordinis.metrics import accounts, alerts, orders, processes, reconciliation
from ordinis.metrics.scrape import Scrape

logger = logging.getLogger(__name__)

PARTS: Final[dict[str, Callable[[Scrape], Iterator[Metric]]]] = {
    "accounts": accounts.collect,
    "reconciliation": reconciliation.collect,
    "orders": orders.collect,
    "processes": processes.collect,
    "alerts": alerts.collect,
}


class _Tables(Collector):
    """All parts; one that fails leaves the others to be read, and is told as such."""

    def collect(self) -> Iterator[Metric]:
        scrape = Scrape.now()
        read = GaugeMetricFamily(
            "ordinis_scrape_part_success",
            "1 where this part of the page could be read from the tables.",
            labels=["part"],
        )
        for name, part in PARTS.items():
            try:
                found = list(part(scrape))
            except Exception:  # the rest is worth all the more then
                logger.exception("The metrics of %s could not be read", name)
                found = []
                read.add_metric([name], 0)
            else:
                read.add_metric([name], 1)
            yield from found
        yield read


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Tables())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)
