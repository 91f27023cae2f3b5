"""A test alert on every channel, at once, with its outcome: for the console and the command."""

import uuid
from dataclasses import dataclass

from ordinis.alerts.channels import Configuration, configured
from ordinis.alerts.delivery import Batch, new_claim, send
from ordinis.alerts.models import AlertChannel, AlertMessage, Severity
from ordinis.alerts.wording import compose


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the test on one channel; never with an address."""

    channel: str
    arrived: bool
    words: str


def send_test(actor: str) -> list[Outcome]:
    """Sends, and waits for as long as a run may take. Empty without any channel."""
    configuration = configured()
    AlertChannel.objects.bulk_create(
        [AlertChannel(name=name) for name in configuration.names], ignore_conflicts=True
    )
    # Claimed from the start: the job leaves them to us, unless we die.
    rows = AlertMessage.objects.bulk_create(
        AlertMessage(
            channel=channel.name,
            kind=AlertMessage.Kind.TEST,
            severity=Severity.WARNING,
            reason=f"Asked for by {actor}."[:200],
            attempts=1,
            **new_claim(),
        )
        for channel in configuration.channels
    )
    send(
        [
            (channel, Batch((row.pk,), uuid.UUID(str(row.claim)), compose([row])))
            for channel, row in zip(configuration.channels, rows, strict=True)
        ]
    )
    return [*_outcomes(rows), *_unusable(configuration)]


def _outcomes(rows: list[AlertMessage]) -> list[Outcome]:
    after = AlertMessage.objects.filter(pk__in=[row.pk for row in rows]).order_by("pk")
    return [
        Outcome(
            row.channel,
            arrived=row.state == AlertMessage.State.SENT,
            words="The channel took it." if row.state == AlertMessage.State.SENT else row.error,
        )
        for row in after
    ]


def _unusable(configuration: Configuration) -> list[Outcome]:
    return [
        Outcome(name, arrived=False, words=words) for name, words in configuration.faults.items()
    ]
