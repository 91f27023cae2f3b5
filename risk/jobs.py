"""What the clock calls for risk: the exchange's calendar. Safe to run twice at once."""

import logging
from datetime import date, datetime, time, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Max

from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.errors import BrokerError
from ordinis.broker.port import CalendarDay, Listing
from risk import exchange
from risk.figures import database_now
from risk.models import ExchangeDay

log = logging.getLogger("ordinis.risk")

_BACK, _AHEAD = timedelta(days=30), timedelta(days=400)
# Called each hour, so that a clock that was restarted does not wait a day; read once a day.
_GOOD_FOR: Final = timedelta(hours=20)
# The exchange has never been shut for so long; a longer gap is a fault of the list.
_LONGEST_GAP: Final = timedelta(days=10)
_LEAST_AHEAD: Final = timedelta(days=30)
_EARLIEST, _LATEST = time(4, 0), time(20, 0)


class ImplausibleCalendar(Exception):
    """What the broker called its calendar can't be one."""


def calendar() -> None:
    """Keeps the broker's calendar, once a day. What was read before stays when it can't be."""
    now = database_now()
    newest = ExchangeDay.objects.aggregate(newest=Max("as_of"))["newest"]
    if newest is not None and now - newest < _GOOD_FOR:
        return
    for account in BrokerAccount.served():
        try:
            today = exchange.exchange_day(now)
            listing = broker_for(account).calendar(today - _BACK, today + _AHEAD)
            keep(plausible(listing, today), as_of=now, start=today - _BACK)
        except (BrokerError, ImplausibleCalendar) as error:
            _tell(account, error)
        else:
            end_alert(account.pk, code="calendar_not_read", subject=account.name)
            return  # they are all at one broker


def plausible(listing: Listing[CalendarDay], today: date) -> list[ExchangeDay]:
    """The listing's days, oldest first. Raises ImplausibleCalendar when they can't be the
    exchange's: then nothing of it is believed."""
    if not listing.complete:
        raise ImplausibleCalendar(f"It could not be read completely: {listing.reason}")
    days = sorted((_day_of(told) for told in listing.items), key=lambda row: row.day)
    dates = [row.day for row in days]
    bounds = [today - _BACK, *dates]
    if not dates or dates[-1] < today + _LEAST_AHEAD:
        raise ImplausibleCalendar("It does not reach a month ahead.")
    for before, after in zip(bounds, dates, strict=False):
        if after - before > _LONGEST_GAP or after < bounds[0]:
            raise ImplausibleCalendar(f"It has no trading day from {before} to {after}.")
    if len(set(dates)) != len(dates):
        raise ImplausibleCalendar("It names a day twice.")
    return days


def _day_of(told: CalendarDay) -> ExchangeDay:
    try:
        opens, closes = time.fromisoformat(told.open), time.fromisoformat(told.close)
    except ValueError as error:
        raise ImplausibleCalendar(f"{told.day}: {told.open} to {told.close} is no time.") from error
    if not _EARLIEST <= opens < closes <= _LATEST or told.day.weekday() >= 5:
        raise ImplausibleCalendar(f"{told.day}, {told.open} to {told.close}, is no trading day.")
    return ExchangeDay(day=told.day, opens=opens, closes=closes)


def keep(days: list[ExchangeDay], *, as_of: datetime, start: date) -> None:
    """Stores the days; one of their span that they lack is closed now, and goes."""
    for row in days:
        row.as_of = as_of
    named = [row.day for row in days]
    with transaction.atomic():
        ExchangeDay.objects.bulk_create(
            days,
            update_conflicts=True,
            unique_fields=("day",),
            update_fields=("opens", "closes", "as_of"),
        )
        gone = ExchangeDay.objects.filter(day__range=(start, named[-1])).exclude(day__in=named)
        gone.delete()
    exchange.forget()
    log.info("calendar read", extra={"days": len(days), "to": f"{named[-1]}"})


def _tell(account: BrokerAccount, error: Exception) -> None:
    raise_alert(
        account.pk,
        code="calendar_not_read",
        subject=account.name,
        severity=Alert.Severity.WARNING,
        message=f"The broker's calendar was not taken over: {error} The one that was read before "
        "and the shipped one hold; it is tried again every hour.",
    )
