"""Keeps what the broker's stream said, from its arrival until it is worked off and forgotten.

A frame is a row before anything else is done with it. A frame that can't be read is a row too:
nothing that the broker says may stop what it says next from being stored.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DataError, transaction
from django.db.models import Q, QuerySet

from orders.models import StreamMessage
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_stream import Frame
from ordinis.broker.parsing import parse_time
from ordinis.logging import mask

# Events can overtake each other; what is older than this has certainly been overtaken.
_OVERLAP = timedelta(seconds=10)
# The newest are kept whatever their age: the next gap is closed from there.
_ALWAYS_KEPT = 100
# Failures of one message are counted up to here, which is as far as the column goes.
_MOST_COUNTED = 30_000
# Without these to the letter an update would not find its order. No secret is ever one.
_IDENTIFIERS = frozenset({"id", "client_order_id", "event_id", "execution_id"})


@dataclass(frozen=True, slots=True)
class Cursor:
    """From where the broker's history is read again."""

    since_id: str
    """Everything up to this event is stored."""
    known_id: str
    """A later event that is stored too: a history that does not repeat it can't be trusted."""


def store(account_id: int, frames: Sequence[Frame], *, after_gap: bool) -> None:
    """Stores frames in one transaction; an event that is stored already stays as it is."""
    rows = [_row(account_id, frame, after_gap) for frame in frames]
    try:
        with transaction.atomic():
            StreamMessage.objects.bulk_create(rows, ignore_conflicts=True)
    except DataError:  # the database's JSON refuses what JSON allows: each for itself
        for frame in frames:
            row = _row(account_id, frame, after_gap)
            try:
                with transaction.atomic():
                    StreamMessage.objects.bulk_create([row], ignore_conflicts=True)
            except DataError:
                row.body, row.event_id, row.broker_order_id = _unreadable(frame), None, ""
                row.save(force_insert=True)


def due(account_id: int, now: datetime, *, patience: int, most: int) -> list[StreamMessage]:
    """The next messages to work off, oldest event first.

    A message that failed waits for its time, and for its first `patience` failures those of the
    same order wait behind it; after that they pass, since the door takes any order.
    """
    waiting = _unprocessed(account_id).filter(retry_at__gt=now)
    held_up = waiting.filter(attempts__lte=patience).exclude(broker_order_id="")
    return list(
        _unprocessed(account_id)
        .filter(Q(retry_at=None) | Q(retry_at__lte=now))
        .exclude(broker_order_id__in=held_up.values("broker_order_id"))
        .order_by("event_id", "id")[:most]
    )


def mark_processed(message: StreamMessage, now: datetime, error: str = "") -> None:
    message.processed_at, message.error = now, error
    message.save(update_fields=("processed_at", "error"))


def mark_failed(message: StreamMessage, retry_at: datetime, error: str) -> None:
    message.attempts = min(message.attempts + 1, _MOST_COUNTED)
    message.retry_at, message.error = retry_at, error
    message.save(update_fields=("attempts", "retry_at", "error"))


def settle(account_id: int) -> None:
    """From now on nothing is missing before what is stored."""
    StreamMessage.objects.filter(account_id=account_id, after_gap=True).update(after_gap=False)


def cursor(account_id: int) -> Cursor | None:
    """None while fewer than two events are known."""
    events = _settled(account_id).exclude(event_id=None).order_by("-event_id")
    newest = events.first()
    if newest is None:
        return None
    before = events.filter(received_at__lt=newest.received_at - _OVERLAP).first()
    since = before or events.last()
    if since is None or since.pk == newest.pk:
        return None
    return Cursor(since_id=str(since.event_id), known_id=str(newest.event_id))


def last_event_at(account_id: int) -> datetime | None:
    """The broker's time of the last message before which nothing is missing. Never
    `submitted_at`, which moves; and never in the future, whatever the broker says."""
    last = _settled(account_id).order_by("-id").first()
    if last is None:
        return None
    told = parse_time(_at(last.body, "data", "at") or _at(last.body, "data", "timestamp"))
    return min(told or last.received_at, last.received_at)


def forget(now: datetime) -> int:
    """Deletes what was worked off and is older than the setting says; returns how many."""
    cutoff = now - timedelta(days=settings.STREAM_MESSAGE_DAYS)
    deleted = 0
    for account in BrokerAccount.objects.all():
        rows = StreamMessage.objects.filter(account=account)
        newest = rows.order_by("-id").values_list("id", flat=True)
        oldest_kept = newest[_ALWAYS_KEPT - 1 : _ALWAYS_KEPT].first()
        if oldest_kept is not None:
            old = rows.filter(id__lt=oldest_kept, received_at__lt=cutoff)
            deleted += old.exclude(processed_at=None).delete()[0]
    return deleted


def event_id_of(frame: Frame) -> str | None:
    """The broker's name of the event in a frame, where it gives one."""
    return _event_id(_decoded(frame))


def _unprocessed(account_id: int) -> QuerySet[StreamMessage]:
    return StreamMessage.objects.filter(account_id=account_id, processed_at=None)


def _settled(account_id: int) -> QuerySet[StreamMessage]:
    return StreamMessage.objects.filter(account_id=account_id, after_gap=False)


def _row(account_id: int, frame: Frame, after_gap: bool) -> StreamMessage:
    body = _decoded(frame)
    return StreamMessage(
        account_id=account_id,
        event_id=_event_id(body),
        broker_order_id=_order_id(body),
        received_at=frame.received_at,
        body=body,
        after_gap=after_gap,
    )


def _decoded(frame: Frame) -> dict[str, Any]:
    """The message, its numbers to the letter, its secrets masked."""
    try:
        # As text, so that no digit is lost and the database takes what is no number.
        body = _storable(json.loads(frame.data, parse_float=str, parse_constant=str))
    except (ValueError, RecursionError):
        return _unreadable(frame)
    return body if isinstance(body, dict) else _unreadable(frame)


def _unreadable(frame: Frame) -> dict[str, str]:
    return {"unreadable": mask(ascii(frame.data))}


def _storable(value: Any, name: str = "") -> Any:
    """Without secrets, and without the characters that the database's JSON refuses."""
    if isinstance(value, dict):
        return {key: _storable(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "").encode(errors="replace").decode()
    return text if name in _IDENTIFIERS else mask(text)


def _event_id(body: Any) -> str | None:
    event_id = str(_at(body, "data", "event_id") or "")
    return event_id if 0 < len(event_id) <= 64 else None


def _order_id(body: Any) -> str:
    return str(_at(body, "data", "order", "id") or "")[:64]


def _at(body: Any, *path: str) -> Any:
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body
