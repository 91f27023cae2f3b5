"""How old the last complete comparison is, what differs, and how long comparing takes."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from django.db.models import Count, Max, Min, Q, Sum
from django.db.models.functions import Abs
from prometheus_client.core import Metric

from ordinis.metrics.scrape import Scrape, gauge
from reconciliation.models import OF_POSITIONS, Break, Correction, Kind, ReconciliationReport
from risk.limits import Limits, in_force_of_all
from risk.models import RiskLimits

_HOUR: Final = timedelta(hours=1)


def collect(scrape: Scrape) -> Iterator[Metric]:
    yield from _freshness(scrape)
    yield from _breaks(scrape)
    yield _corrections(scrape)
    yield from _runs(scrape)


def _freshness(scrape: Scrape) -> Iterator[Metric]:
    cadence = gauge("reconciliation_cadence_seconds", "How often a comparison is due at present.")
    age = gauge(
        "reconciliation_last_complete_age_seconds",
        "Since the book was last compared with the broker completely, or taken over from it.",
    )
    watched = gauge("reconciliation_watched", "1 where the account's reconcile mode is not off.")
    limits = in_force_of_all()
    for account in scrape.accounts:
        cadence.add_metric([account.name], account.cadence.total_seconds())
        if account.books_as_of is not None:
            age.add_metric([account.name], scrape.age(account.books_as_of))
        mode = limits.get(account.pk, Limits()).reconcile_mode
        watched.add_metric([account.name], mode != RiskLimits.ReconcileMode.OFF)
    yield from (cadence, age, watched)


def _breaks(scrape: Scrape) -> Iterator[Metric]:
    count = gauge("breaks_open", "Open breaks.", ("account", "kind", "severity"))
    oldest = gauge("break_oldest_age_seconds", "Since the oldest open break was first seen; or 0.")
    drift = gauge(
        "drift_dollars",
        "Open breaks, each by its size: of positions, or of cash.",
        ("account", "of"),
    )
    unpriced = gauge("breaks_without_value", "Open breaks of positions that nobody can price.")
    rows = Break.objects.filter(account__in=scrape.keys, ended_at=None)
    found = {
        (row["account_id"], row["kind"], row["severity"]): row
        for row in rows.order_by()
        .values("account_id", "kind", "severity")
        .annotate(
            breaks=Count("pk"),
            since=Min("first_seen"),
            dollars=Sum(Abs("value")),
            unpriced=Count("pk", filter=Q(value=None)),
        )
    }
    for account in scrape.accounts:
        mine = {key[1:]: row for key, row in found.items() if key[0] == account.pk}
        for kind in Kind.values:
            for severity in Break.Severity.values:
                row = mine.get((kind, severity))
                count.add_metric([account.name, kind, severity], row["breaks"] if row else 0)
        ages = [scrape.age(row["since"]) for row in mine.values()]
        oldest.add_metric([account.name], max(ages, default=0))
        for of, kinds in (("positions", OF_POSITIONS), ("cash", {Kind.CASH})):
            dollars = sum(row["dollars"] or 0 for key, row in mine.items() if key[0] in kinds)
            drift.add_metric([account.name, of], float(dollars))
        without = sum(row["unpriced"] for key, row in mine.items() if key[0] in OF_POSITIONS)
        unpriced.add_metric([account.name], without)
    yield from (count, oldest, drift, unpriced)


def _corrections(scrape: Scrape) -> Metric:
    family = gauge("corrections_waiting", "Corrections that wait for a decision.")
    rows = Correction.objects.filter(
        account__in=scrape.keys, status=Correction.Status.PROPOSED
    ).order_by()
    waiting = dict(rows.values("account_id").annotate(n=Count("pk")).values_list("account_id", "n"))
    for account in scrape.accounts:
        family.add_metric([account.name], waiting.get(account.pk, 0))
    return family


def _runs(scrape: Scrape) -> Iterator[Metric]:
    """Of the last hour: gauges, since the rows of older runs may go."""
    labels = ("account", "result")
    runs = gauge("reconciliation_runs_last_hour", "Comparisons of the last hour.", labels)
    total = gauge("reconciliation_seconds_last_hour", "Seconds that they took together.", labels)
    longest = gauge("reconciliation_longest_seconds_last_hour", "The longest of them.", labels)
    asking = gauge(
        "reconciliation_broker_seconds_last_hour",
        "Of the seconds, those in which the broker was asked.",
        labels,
    )
    rows = ReconciliationReport.objects.filter(
        account__in=scrape.keys, started_at__gt=scrape.at - _HOUR
    )
    found: dict[tuple[int, bool], Any] = {
        (row["account_id"], row["complete"]): row
        for row in rows.order_by()
        .values("account_id", "complete")
        .annotate(
            runs=Count("pk"),
            seconds=Sum("duration_seconds"),
            longest=Max("duration_seconds"),
            asking=Sum("broker_seconds"),
        )
    }
    for account in scrape.accounts:
        for complete, result in ((True, "complete"), (False, "incomplete")):
            row = found.get((account.pk, complete))
            for family, name in (
                (runs, "runs"),
                (total, "seconds"),
                (longest, "longest"),
                (asking, "asking"),
            ):
                family.add_metric([account.name, result], float(row[name]) if row else 0)
    yield from (runs, total, longest, asking)
