"""The exchange's days: "today" in the console is the exchange's, not the reader's."""

from datetime import date, datetime, time

from django.utils import timezone


def start_of_day(day: date) -> datetime:
    """Midnight of an exchange day."""
    return timezone.make_aware(datetime.combine(day, time.min))


def start_of_today() -> datetime:
    """When the exchange's day began."""
    return start_of_day(timezone.localdate())
