"""Alerts about the alerts: a channel that is dead, an address or a rule that can't be used.

Found anew in every run from what is stored, so they end by themselves. They go to the channels
that work, and to the console.
"""

from collections.abc import Mapping

from django.conf import settings

from ordinis.alerts.channels import Configuration
from ordinis.alerts.models import Alert, AlertChannel, Severity, end_alert, raise_alert

DEAD, FAULTY = "alert_channel_dead", "alert_channels_wrong"


def tell_of_channels(configuration: Configuration) -> None:
    """Raises and ends these alerts; writes only where something changed."""
    dead = {
        channel.name: (
            f"The channel {channel.name} has failed {channel.failures} times in a row: "
            f"{channel.last_error} It is tried again at least every "
            f"{settings.ALERT_BACKOFF[-1] / 60:g} minutes; check its address, and its service."
        )
        for channel in AlertChannel.objects.filter(
            name__in=configuration.names, failures__gte=settings.ALERT_CHANNEL_DEAD_AFTER
        )
    }
    standing = set(
        Alert.objects.filter(account=None, code__in=(DEAD, FAULTY), ended_at=None).values_list(
            "code", "subject"
        )
    )
    _keep_true(DEAD, dead, standing)
    _keep_true(FAULTY, configuration.faults, standing)


def _keep_true(code: str, wanted: Mapping[str, str], standing: set[tuple[str, str]]) -> None:
    for subject, message in wanted.items():
        if (code, subject) not in standing:
            raise_alert(
                None, code=code, subject=subject, severity=Severity.CRITICAL, message=message
            )
    for known, subject in standing:
        if known == code and subject not in wanted:
            end_alert(None, code=code, subject=subject)
