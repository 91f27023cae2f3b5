"""Signs of life: the processes, the broker's stream, the periodic jobs."""

from collections.abc import Iterator

from django.db.models import Count, Min, OuterRef, Subquery
from prometheus_client.core import Metric

from orders.models import StreamMessage
from ordinis.accounts.models import BrokerAccount
from ordinis.metrics.scrape import Scrape, gauge
from ordinis.models import Heartbeat, JobRun


def collect(scrape: Scrape) -> Iterator[Metric]:
    yield _processes(scrape)
    yield from _stream(scrape)
    yield from _jobs(scrape)


def _processes(scrape: Scrape) -> Metric:
    family = gauge(
        "process_last_seen_age_seconds",
        "Since a kind of process last did its work; listen only does while the stream stands.",
        ("process",),
    )
    for row in Heartbeat.objects.all():
        family.add_metric([row.name], scrape.age(row.last_seen_at))
    return family


def _stream(scrape: Scrape) -> Iterator[Metric]:
    last = gauge(
        "stream_last_message_age_seconds",
        "Since the last message that names its event came by the broker's stream.",
    )
    waiting = gauge("stream_messages_waiting", "Messages that are stored and not worked off.")
    oldest = gauge("stream_oldest_waiting_age_seconds", "Since the oldest of them came; or 0.")
    # Their own order answers at once: an event's name sorts by time.
    newest = StreamMessage.objects.filter(account_id=OuterRef("pk"), event_id__isnull=False)
    times = dict(
        BrokerAccount.objects.filter(pk__in=scrape.keys)
        .annotate(heard=Subquery(newest.order_by("-event_id").values("received_at")[:1]))
        .values_list("pk", "heard")
    )
    rows = StreamMessage.objects.filter(account__in=scrape.keys, processed_at=None).order_by()
    behind = {
        row["account_id"]: row
        for row in rows.values("account_id").annotate(n=Count("pk"), since=Min("received_at"))
    }
    for account in scrape.accounts:
        heard = times.get(account.pk)
        if heard is not None:
            last.add_metric([account.name], scrape.age(heard))
        row = behind.get(account.pk)
        waiting.add_metric([account.name], row["n"] if row else 0)
        oldest.add_metric([account.name], scrape.age(row["since"]) if row else 0)
    yield from (last, waiting, oldest)


def _jobs(scrape: Scrape) -> Iterator[Metric]:
    finished = gauge("job_last_finished_age_seconds", "Since a job last ended.", ("job",))
    took = gauge("job_last_duration_seconds", "What its last run took.", ("job",))
    failures = gauge("job_failures_in_a_row", "Runs that failed since it last went well.", ("job",))
    for row in JobRun.objects.all():
        if row.last_finished_at is not None:
            finished.add_metric([row.name], scrape.age(row.last_finished_at))
        if row.last_duration is not None:
            took.add_metric([row.name], row.last_duration)
        failures.add_metric([row.name], row.failures)
    yield from (finished, took, failures)
