"""What people read: one message of all that is due on a channel, the worst first, never long.

Pure: figures in, text out. Which money is at stake stands at the front of every title.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from django.conf import settings

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, AlertMessage, Severity
from ordinis.alerts.transport import Tone
from ordinis.logging import mask

Mode, Kind = BrokerAccount.Mode, AlertMessage.Kind
BANDS: Final = {
    Mode.LIVE.value: "LIVE, REAL MONEY",
    Mode.PAPER.value: "PAPER",
    Mode.SIMULATED.value: "SIMULATED",
}
# Chat services cut or refuse what is longer than about 2,000 characters.
_LINES, _LINE, _BODY = 12, 240, 1700
_SYMBOL = re.compile(r"[A-Z][A-Z0-9./]*")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as it goes out."""

    title: str
    body: str
    tone: Tone


def compose(messages: Sequence[AlertMessage]) -> Letter:
    """One text for all of these."""
    groups: dict[tuple[int, str], list[AlertMessage]] = defaultdict(list)
    for message in messages:
        groups[_rank(message), message.alert.words if message.alert else ""].append(message)
    ranks = sorted(groups)
    several = len({_account(message) for message in messages if message.alert}) > 1
    parts, hidden, room, lines_left = [], 0, _BODY, _LINES
    for rank, words in ranks:
        rows = groups[rank, words]
        shown = []
        for line in (_line(row, several=several) for row in rows[:lines_left]):
            if len(line) > room:
                break
            shown.append(line)
            room -= len(line)
        lines_left -= len(shown)
        if not shown:
            hidden += len(rows)
            continue
        more = len(rows) - len(shown)
        tail = [f"- and {more} more"] if more else []
        parts.append("\n".join([_heading(rank, words, len(rows)), *shown, *tail]))
    if hidden:
        parts.append(f"And {hidden} more.")
    if link := _link(messages):
        parts.append(link)
    return Letter(_title(messages, ranks, groups), "\n\n".join(parts), _tone(ranks[0][0]))


_ACT, _LOOK, _OVER, _TEST = range(4)


def _rank(message: AlertMessage) -> int:
    if message.kind == Kind.TEST:
        return _TEST
    if message.kind == Kind.RECOVERY:
        return _OVER
    return _ACT if message.severity == Severity.CRITICAL else _LOOK


def _tone(rank: int) -> Tone:
    tones: tuple[Tone, ...] = ("failure", "warning", "success", "info")
    return tones[rank]


def _heading(rank: int, words: str, count: int) -> str:
    if rank == _TEST:
        return "Test alert"
    what = {_ACT: "To act on", _LOOK: "To look at", _OVER: "Over"}[rank]
    return f"{what}: {words}" + (f" ({count})" if count > 1 else "")


def _title(
    messages: Sequence[AlertMessage],
    ranks: list[tuple[int, str]],
    groups: dict[tuple[int, str], list[AlertMessage]],
) -> str:
    modes = {_mode(message) for message in messages}
    band = BANDS[next(mode for mode in BANDS if mode in modes)]  # live before paper
    accounts = sorted({_account(message) for message in messages} - {""})
    named = [", ".join(accounts[:3]) + (" and others" if len(accounts) > 3 else "")]
    if len(ranks) == 1:
        what = _heading(*ranks[0], len(messages))
    else:
        counts = [0, 0, 0, 0]
        for (rank, _), rows in groups.items():
            counts[rank] += len(rows)
        what = ", ".join(
            f"{count} {word}"
            for count, word in zip(counts, ("to act on", "to look at", "over", "test"), strict=True)
            if count
        )
    return " · ".join([band, *filter(None, named), what])


def _mode(message: AlertMessage) -> str:
    account = message.alert.account if message.alert else None
    return account.mode if account else settings.BROKER_MODE


def _account(message: AlertMessage) -> str:
    account = message.alert.account if message.alert else None
    return account.name if account else ""


def _line(message: AlertMessage, *, several: bool) -> str:
    alert = message.alert
    if alert is None:
        return f"Nothing is wrong: this only shows that messages arrive here. {message.reason}"
    named = f"{_account(message)}: " if several and _account(message) else ""
    said = f"{named}{alert.message}"
    said = " ".join(mask(said).split())
    said = said if len(said) <= _LINE else f"{said[: _LINE - 1]}…"
    if message.kind == Kind.RECOVERY and alert.ended_at:
        return f"- Over after {_span(alert)}. It was: {said}"
    if message.kind == Kind.REPEAT:
        since, seen = _moment(alert.first_seen), alert.seen_count
        return f"- Still: {said} Since {since}, seen {'once' if seen == 1 else f'{seen} times'}."
    return f"- {said} Since {_moment(alert.first_seen)}."


def _moment(value: datetime) -> str:
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(alert: Alert) -> str:
    assert alert.ended_at is not None
    seconds = max(0, int((alert.ended_at - alert.first_seen).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _link(messages: Sequence[AlertMessage]) -> str:
    if not settings.CONSOLE_URL:
        return ""
    alerts = {message.alert_id: message.alert for message in messages}
    alert = messages[0].alert
    if len(alerts) > 1 or alert is None:
        return f"{settings.CONSOLE_URL}/alerts/alert/"
    # Of a position, whose symbol finds its breaks; other breaks are not found by their subject.
    if alert.code.startswith("break_") and _SYMBOL.fullmatch(alert.subject):
        which = "ended" if alert.ended_at else "open"
        query = urlencode({"q": alert.subject, "state": which})
        return f"{settings.CONSOLE_URL}/reconciliation/break/?{query}"
    return f"{settings.CONSOLE_URL}/alerts/alert/{alert.pk}/change/"
