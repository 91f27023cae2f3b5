"""Which broker an account's orders go to, and the request budget its processes share."""

import functools
from datetime import UTC, datetime

from django.conf import settings
from django.db.models import F, Q

from ordinis.accounts.models import BrokerAccount, RequestBudget
from ordinis.broker.alpaca import AlpacaBroker
from ordinis.broker.budget import Priority, Window
from ordinis.broker.errors import BrokerRefused
from ordinis.broker.port import Broker
from ordinis.broker.registry import credentials


def broker_for(account: BrokerAccount) -> Broker:
    """The adapter for an account. Raises BrokerRefused when this process is set up for another
    broker or mode: an account's orders must never reach a broker that is not its own."""
    if (account.broker, account.mode) != (settings.ORDINIS_BROKER, settings.BROKER_MODE):
        raise BrokerRefused(
            f"This account trades at {account.broker!r} ({account.mode}), but Ordinis was started "
            f"for {settings.ORDINIS_BROKER!r} ({settings.BROKER_MODE}). Set ORDINIS_BROKER and "
            "APCA_API_BASE_URL to the account's broker."
        )
    return _adapter(account.pk, settings.BROKER_URL, settings.DATA_URL, settings.BROKER_TIMEOUT)


@functools.cache
def _adapter(account_id: int, url: str, quotes_url: str, timeout: float) -> Broker:
    key_id, secret_key = credentials()
    return AlpacaBroker(
        url=url,
        quotes_url=quotes_url,
        key_id=key_id,
        secret_key=secret_key,
        timeout=timeout,
        store=SharedBudget(account_id),
    )


class SharedBudget:
    """`ordinis.broker.budget.Store` in the database: all processes of an account see one word."""

    def __init__(self, account_id: int) -> None:
        self._account_id = account_id

    def load(self) -> Window | None:
        row = RequestBudget.objects.filter(account_id=self._account_id).first()
        if row is None or row.reset_at is None:
            return None
        return Window(limit=row.limit, remaining=row.remaining, reset_at=row.reset_at.timestamp())

    def save(self, window: Window) -> None:
        reset_at = datetime.fromtimestamp(window.reset_at, UTC)
        values = {"limit": window.limit, "remaining": window.remaining, "reset_at": reset_at}
        self._ensure()
        # A later window, or the same one with less left: an older word changes nothing.
        RequestBudget.objects.filter(
            Q(reset_at=None)
            | Q(reset_at__lt=reset_at)
            | Q(reset_at=reset_at, remaining__gt=window.remaining),
            account_id=self._account_id,
        ).update(**values)

    def held_back(self, value: Priority) -> None:
        self._ensure()
        RequestBudget.objects.filter(account_id=self._account_id).update(
            held_back=F("held_back") + 1, last_held_back_at=datetime.now(UTC)
        )

    def _ensure(self) -> None:
        RequestBudget.objects.bulk_create(
            [RequestBudget(account_id=self._account_id)], ignore_conflicts=True
        )
