"""Whether the connection to the broker's stream stands: for the sign of life, and the alert when
it is down for long. Knows only what the marks on the queue say."""

import logging
import time

from django.conf import settings

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.alpaca_stream import Mark

log = logging.getLogger("ordinis.stream")

# The connection says every two seconds that it stands.
_SILENT_SECONDS = 10.0


class Link:
    """Whether the connection stands, for the sign of life and the alert."""

    def __init__(self, account: BrokerAccount) -> None:
        self._account = account
        self._stands = False
        self._seen = time.monotonic()  # when it last stood, or we began to wait for it
        self._told: bool | None = None  # what the alert says, once it was written

    @property
    def stands(self) -> bool:
        return self._stands and time.monotonic() - self._seen < _SILENT_SECONDS

    def heed(self, mark: Mark) -> None:
        self._seen = time.monotonic()
        stands = mark is not Mark.DISCONNECTED
        if stands != self._stands:
            self._stands = stands
            what = "connected to" if stands else "disconnected from"
            log.info("%s the broker's stream", what, extra={"account": self._account.name})

    def report(self) -> None:
        """Keeps the alert true; a row is only written when that changes."""
        down = not self.stands
        too_early = time.monotonic() - self._seen < settings.STREAM_DOWN_SECONDS
        if down == self._told or (down and too_early):
            return
        if down:
            raise_alert(
                self._account.pk,
                code="stream_down",
                subject=self._account.name,
                severity=Alert.Severity.CRITICAL,
                message=(
                    "The broker's order stream is down. Fills are only noticed by the poll, every "
                    f"{settings.POLL_SECONDS:g} s. It is connected to again by itself; if this "
                    "lasts, read the log of manage.py listen and the broker's status page."
                ),
            )
        else:
            end_alert(self._account.pk, code="stream_down", subject=self._account.name)
        self._told = down
