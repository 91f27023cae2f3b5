"""How the console writes numbers, times and statuses. Pure: values in, text out.

Every difference has a sign, every time says ET, and a missing figure is a dash, never a zero.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.utils import timezone

NONE: Final = "–"
_MINUS: Final = "\N{MINUS SIGN}"
_ZONE: Final = "ET" if settings.TIME_ZONE == "America/New_York" else settings.TIME_ZONE

# What the coarse words of the API do not say by themselves.
_STATUS_WORDS: Final = {
    "canceled": "Cancelled",
    "denied": "Denied by risk",
    "rejected": "Rejected by broker",
    "submitting": "Being sent",
    "failed": "Never arrived",
}
# Statuses that a person should look at; everything else is the ordinary course of an order.
_STATUS_TONES: Final = {
    "unresolved": "amber",
    "denied": "amber",
    "rejected": "amber",
    "failed": "amber",
}


def shares(value: Decimal | None) -> str:
    """1,250.5: no needless zeros."""
    return NONE if value is None else _signless(value, f"{abs(value).normalize():,f}")


def money(value: Decimal | None) -> str:
    """$52,596.00"""
    return NONE if value is None else _signless(value, f"${abs(value):,.2f}")


def price(value: Decimal | None) -> str:
    """$250.30: cents at least, and as many more places as the price has."""
    if value is None:
        return NONE
    whole, _, places = f"{abs(value):,f}".partition(".")
    return _signless(value, f"${whole}.{places.rstrip('0').ljust(2, '0')}")


def signed_shares(value: Decimal | None) -> str:
    """+40, −40 or 0."""
    return NONE if value is None else _plus(value) + shares(value)


def signed_money(value: Decimal | None) -> str:
    """+$40.00, −$40.00 or $0.00."""
    return NONE if value is None else _plus(value) + money(value)


def _signless(value: Decimal, text: str) -> str:
    return f"{_MINUS}{text}" if value < 0 else text


def _plus(value: Decimal) -> str:
    return "+" if value > 0 else ""


def span(length: timedelta) -> str:
    """A length of time in the two units that matter: 43 ms, 2.3 s, 4 min 10 s, 3 h 5 min, 2 d."""
    seconds = length.total_seconds()
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return age(length)


def age(length: timedelta) -> str:
    """A length of time in whole units, as it ticks on a page; console.js writes the same."""
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def moment(value: datetime, *, now: datetime, exact: bool = False) -> str:
    """Exchange time, with the day where it is not today: 14:03:22 ET, Nov 19 14:03:22 ET."""
    local, today = timezone.localtime(value), timezone.localtime(now)
    clock = f"{local:%H:%M:%S}" + (f".{local.microsecond // 1000:03d}" if exact else "")
    if local.date() == today.date():
        return f"{clock} {_ZONE}"
    year = "" if local.year == today.year else f" {local.year}"
    return f"{local:%b} {local.day}{year} {clock} {_ZONE}"


def moment_in_full(value: datetime) -> str:
    """For hovering: the exchange's time and UTC."""
    local = timezone.localtime(value)
    universal = value.astimezone(UTC)
    return f"{local:%Y-%m-%d %H:%M:%S} {_ZONE} · {universal:%Y-%m-%d %H:%M:%S} UTC"


def status(value: str) -> str:
    """An order's status in words; the broker's unknown ones as they came."""
    return _STATUS_WORDS.get(value) or value.replace("_", " ").capitalize()


def status_tone(value: str) -> str:
    """The colour class of a status; empty for the ordinary ones."""
    return _STATUS_TONES.get(value, "")
