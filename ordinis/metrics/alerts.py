"""Alerts that stand, and whether the channels that tell of them work."""

from collections.abc import Iterator

from django.db.models import Count, Min
from prometheus_client.core import Metric

from ordinis.alerts.models import Alert, AlertChannel, AlertMessage
from ordinis.metrics.scrape import Scrape, gauge


def collect(scrape: Scrape) -> Iterator[Metric]:
    yield _standing(scrape)
    yield from _backlog(scrape)
    yield _channels()


def _standing(scrape: Scrape) -> Metric:
    family = gauge(
        "alerts_open",
        "Alerts that stand; those of the whole installation have no account.",
        ("account", "severity"),
    )
    rows = Alert.objects.filter(ended_at=None).order_by().values("account_id", "severity")
    found: dict[tuple[int | None, str], int] = {
        (row["account_id"], row["severity"]): row["n"] for row in rows.annotate(n=Count("pk"))
    }
    for key, name in [*((row.pk, row.name) for row in scrape.accounts), (None, "")]:
        for severity in Alert.Severity.values:
            family.add_metric([name, severity], found.get((key, severity), 0))
    return family


def _backlog(scrape: Scrape) -> Iterator[Metric]:
    waiting = gauge("alert_messages_waiting", "Messages not sent yet.", ("channel",))
    oldest = gauge(
        "alert_message_oldest_age_seconds", "Since the oldest of them was written.", ("channel",)
    )
    rows = AlertMessage.objects.filter(state=AlertMessage.State.PENDING).order_by()
    for row in rows.values("channel").annotate(n=Count("pk"), since=Min("created_at")):
        waiting.add_metric([row["channel"]], row["n"])
        oldest.add_metric([row["channel"]], scrape.age(row["since"]))
    yield from (waiting, oldest)


def _channels() -> Metric:
    family = gauge(
        "alert_channel_failures_in_a_row",
        "Attempts that failed since the channel last worked.",
        ("channel",),
    )
    for row in AlertChannel.objects.all():
        family.add_metric([row.name], row.failures)
    return family
