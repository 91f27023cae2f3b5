"""Moments in time as the wire writes them: nanoseconds inside, RFC 3339 outside, and ULIDs.

Must never round: a timestamp that was sent comes back as the same integer.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]  # nanoseconds since 1970, UTC

SECOND = 1_000_000_000
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's, as ULIDs use it
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]  # two digits, 10 bits
_SHIFTS = range(120, -10, -10)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9})\d*)?(Z|z|[+-]\d{2}:?\d{2})?)?"
)
_whole_seconds: dict[int, str] = {}


def text(moment: int) -> str:
    """RFC 3339 in UTC with nine digits, as Alpaca writes it."""
    second, fraction = divmod(moment, SECOND)
    prefix = _whole_seconds.get(second)
    if prefix is None:
        if len(_whole_seconds) > 1_000:
            _whole_seconds.clear()
        prefix = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _whole_seconds[second] = prefix
    return f"{prefix}.{fraction:09d}Z"


def optional_text(moment: int | None) -> str | None:
    return None if moment is None else text(moment)


def parse(value: str) -> int:
    """Nanoseconds of an RFC 3339 moment or a plain date (its first instant, UTC).

    Raises ValueError for anything else.
    """
    # A "+" that was not escaped in a query arrives as a space.
    match = _RFC3339.fullmatch(re.sub(r" (\d{2}:?\d{2})$", r"+\1", value.strip()))
    if match is None:
        raise ValueError(f"{value!r} is not an RFC 3339 moment")
    day, clock, fraction, zone = match.groups()
    offset = (zone or "Z").upper().replace("Z", "+00:00")
    whole = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}{offset}")
    return int(whole.timestamp()) * SECOND + int((fraction or "0").ljust(9, "0"))


def compact_text(moment: int) -> str:
    """Digits down to the millisecond, the first half of an activity's id."""
    stamp = datetime.fromtimestamp(moment // SECOND, UTC).strftime("%Y%m%d%H%M%S")
    return f"{stamp}{moment % SECOND // 1_000_000:03d}"


def next_ulid(moment: int, last: int, noise: bytes) -> int:
    """A ULID as an integer, always above `last`, also when the clock went back."""
    fresh = (moment // 1_000_000 << 80) | int.from_bytes(noise, "big")
    return max(fresh, last + 1)


def ulid_text(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
