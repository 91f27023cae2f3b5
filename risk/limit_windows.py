"""How a person writes until when a temporary change holds: the same in the console and on the
command line. Pure.
"""

import re
from datetime import datetime, timedelta
from typing import Final

from django.core.exceptions import ValidationError

from risk.exchange import NEW_YORK

HELP: Final = 'exchange time, as 2026-11-20 16:00, or a length of time: "30m", "2h", "5d"'
_LENGTH: Final = re.compile(r"(\d{1,6})\s*(m|h|d)")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_FORMS: Final = ("%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M")


def read_end(text: str) -> datetime | timedelta | None:
    """None where nothing is written. Raises ValidationError."""
    text = text.strip()
    if not text:
        return None
    if length := _LENGTH.fullmatch(text):
        return timedelta(**{_UNITS[length[2]]: int(length[1])})
    for form in _FORMS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=NEW_YORK)
        except ValueError:
            continue
    raise ValidationError(f"{text!r} is no end. Write {HELP}.")
