"""Sends what the outbox holds: one message per channel, each channel in a thread of its own.

A batch is claimed in the database before anything goes out, so two workers send one message; the
claim of a process that died falls by itself, and then it is sent again: told twice sometimes,
never not at all. Must never hold a transaction open while a channel answers, and never wait for
one longer than a run may take.
"""

import logging
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import Error, connection, transaction
from django.db.models import BooleanField, ExpressionWrapper, F, Q
from django.db.models.functions import Now

from ordinis.alerts.channels import Channel, Configuration
from ordinis.alerts.models import AlertChannel, AlertMessage
from ordinis.alerts.transport import post
from ordinis.alerts.wording import Letter, compose

log = logging.getLogger("ordinis.alerts")

Kind, State = AlertMessage.Kind, AlertMessage.State
# Longer than a channel can take with every time limit used up.
_CLAIM = timedelta(seconds=60)
_AT_ONCE = 1000
# Channels that have not answered an earlier run of this process yet.
_sending: dict[str, threading.Thread] = {}


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes out on a channel in one message, and the claim it is held by."""

    keys: tuple[int, ...]
    claim: uuid.UUID
    letter: Letter


def deliver(configuration: Configuration) -> None:
    """Sends what is due on every channel."""
    waiting = set(
        AlertMessage.objects.filter(state=State.PENDING)
        .order_by()
        .values_list("channel", flat=True)
        .distinct()
    )
    batches = []
    for channel in configuration.channels:
        busy = _sending.get(channel.name)
        if channel.name not in waiting or (busy is not None and busy.is_alive()):
            continue
        if batch := _claimed(channel.name):
            batches.append((channel, batch))
    send(batches)


def send(batches: Sequence[tuple[Channel, Batch]]) -> None:
    """Sends the batches at the same time, and gives up those that take too long."""
    threads = []
    for channel, batch in batches:
        thread = threading.Thread(
            target=_post, args=(channel, batch), name=f"alerts to {channel.name}", daemon=True
        )
        _sending[channel.name] = thread
        threads.append(thread)
        thread.start()
    deadline = time.monotonic() + settings.ALERT_RUN_SECONDS
    for (channel, batch), thread in zip(batches, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            _failed(
                channel.name, batch, f"No answer within {settings.ALERT_RUN_SECONDS:g} seconds."
            )


def new_claim() -> dict[str, object]:
    """The columns of a row that this process sends now."""
    return {"claim": uuid.uuid4(), "claimed_until": Now() + _CLAIM}


@transaction.atomic
def _claimed(name: str) -> Batch | None:
    """What is due on the channel, ours alone until the claim is over. What is not due yet goes
    with what is: one message, not two."""
    AlertChannel.objects.bulk_create([AlertChannel(name=name)], ignore_conflicts=True)
    resting = AlertChannel.objects.filter(name=name, retry_at__gt=Now())
    if resting.exists():
        return None
    free = Q(claimed_until=None) | Q(claimed_until__lt=Now())
    due = ExpressionWrapper(Q(next_attempt_at__lte=Now()), output_field=BooleanField())
    rows = list(
        AlertMessage.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
        .select_related("alert__account")
        .filter(free, channel=name, state=State.PENDING)
        .annotate(is_due=due)
        .order_by("pk")[:_AT_ONCE]
    )
    if not any(row.is_due for row in rows):
        return None
    mine = new_claim()
    keys = tuple(row.pk for row in rows)
    AlertMessage.objects.filter(pk__in=keys).update(attempts=F("attempts") + 1, **mine)
    return Batch(keys, uuid.UUID(str(mine["claim"])), compose(rows))


def _post(channel: Channel, batch: Batch) -> None:
    try:
        letter = batch.letter
        error = post(channel.address, title=letter.title, body=letter.body, tone=letter.tone)
        if error:
            _failed(channel.name, batch, error)
        else:
            _sent(channel.name, batch)
    except Error as error:  # the claim falls by itself, and it is sent again
        log.warning("outcome not noted", extra={"channel": channel.name, "error": str(error)})
    finally:
        connection.close()


@transaction.atomic
def _sent(name: str, batch: Batch) -> None:
    """Also when it was given up meanwhile: it was told, and need not be told again."""
    AlertMessage.objects.filter(pk__in=batch.keys, state=State.PENDING).update(
        state=State.SENT, sent_at=Now(), error="", claim=None, claimed_until=None
    )
    AlertChannel.objects.filter(name=name).update(
        failures=0, retry_at=None, last_sent_at=Now(), last_error=""
    )


def _failed(name: str, batch: Batch, error: str) -> None:
    log.warning("alerts not delivered", extra={"channel": name, "error": error})
    with transaction.atomic():
        channel = AlertChannel.objects.select_for_update(no_key=True).get(name=name)
        wait = settings.ALERT_BACKOFF[min(channel.failures, len(settings.ALERT_BACKOFF) - 1)]
        again_at = Now() + timedelta(seconds=wait)
        free = {"error": error, "claim": None, "claimed_until": None}
        # Not ours any more: its outcome was noted already.
        ours = AlertMessage.objects.filter(claim=batch.claim, state=State.PENDING)
        for_good = Q(attempts__gte=settings.ALERT_ATTEMPTS) | Q(kind=Kind.TEST)
        noted = ours.filter(for_good).update(state=State.FAILED, **free)
        noted += ours.update(next_attempt_at=again_at, **free)
        if noted:
            AlertChannel.objects.filter(name=name).update(
                failures=F("failures") + 1,
                retry_at=again_at,
                last_failed_at=Now(),
                last_error=error,
            )
