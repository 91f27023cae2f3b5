"""What became of the orders of the exchange's day, what is open, and what it commits."""

from collections.abc import Iterator
from typing import Final

from django.db.models import Count, Min, Q
from prometheus_client.core import Metric

from orders import statuses, working
from orders.models import Order
from ordinis.metrics.scrape import Scrape, gauge
from reconciliation.daily_counts import OUTCOMES, denials, outcome

_TODAY: Final = "of the exchange's day so far (from midnight in New York)"


def collect(scrape: Scrape) -> Iterator[Metric]:
    yield _today(scrape)
    yield _denied(scrape)
    yield from _open(scrape)
    yield _reserved(scrape)


def _today(scrape: Scrape) -> Metric:
    family = gauge("orders_today", f"Orders {_TODAY}, by how they stand.", ("account", "outcome"))
    rows = Order.objects.filter(
        account__in=scrape.keys, created_at__gte=scrape.today, leg_of=None
    ).order_by()
    counts: dict[tuple[int, str], int] = {}
    for row in rows.values("account_id", "status").annotate(orders=Count("pk")):
        key = row["account_id"], outcome(row["status"])
        counts[key] = counts.get(key, 0) + row["orders"]
    for account in scrape.accounts:
        for each in OUTCOMES:
            family.add_metric([account.name, each], counts.get((account.pk, each), 0))
    return family


def _denied(scrape: Scrape) -> Metric:
    family = gauge(
        "denials_today",
        f"Orders {_TODAY} that our checks denied, by code; one denied by two counts for both.",
        ("account", "code"),
    )
    names = {account.pk: account.name for account in scrape.accounts}
    for (account_id, code), count in denials(scrape.keys, scrape.today, scrape.at).items():
        family.add_metric([names[account_id], code], count)
    return family


def _open(scrape: Scrape) -> Iterator[Metric]:
    still = gauge("orders_open", "Orders to which more can happen.")
    unresolved = gauge("orders_unresolved", "Orders whose answer was lost, not yet resolved.")
    oldest = gauge(
        "order_unresolved_oldest_age_seconds", "Since the oldest of them was sent; or 0."
    )
    rows = Order.objects.filter(account__in=scrape.keys).exclude(status__in=sorted(statuses.CLOSED))
    is_unresolved = Q(status=statuses.UNRESOLVED)
    found = {
        row["account_id"]: row
        for row in rows.order_by()
        .values("account_id")
        .annotate(
            still=Count("pk"),
            unresolved=Count("pk", filter=is_unresolved),
            since=Min("submitted_at", filter=is_unresolved),
        )
    }
    for account in scrape.accounts:
        row = found.get(account.pk)
        still.add_metric([account.name], row["still"] if row else 0)
        unresolved.add_metric([account.name], row["unresolved"] if row else 0)
        since = row["since"] if row else None
        oldest.add_metric([account.name], scrape.age(since) if since else 0)
    yield from (still, unresolved, oldest)


def _reserved(scrape: Scrape) -> Metric:
    family = gauge(
        "reserved_dollars", "What orders commit beyond the buying power that the broker last told."
    )
    asked = {row.pk: row.as_of for row in scrape.accounts if row.as_of is not None}
    commits = working.commits_beyond_of_all(asked)
    for account in scrape.accounts:
        if account.pk in commits:
            family.add_metric([account.name], float(commits[account.pk].money))
    return family
