"""What the clock calls: brings orders to proof and up to date. Safe to run twice at once."""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from django.db import connection

from orders import resolver, sync
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.budget import Priority, priority
from ordinis.broker.errors import BrokerError, NotSent

log = logging.getLogger("ordinis.orders")

_LOOK_UPS_AT_ONCE = 8


def resolve() -> None:
    """Looks up every order whose outcome is unknown, several at once: behind a slow broker none
    must wait for all the others."""
    orders = resolver.due(datetime.now(UTC))
    if orders:
        with ThreadPoolExecutor(_LOOK_UPS_AT_ONCE) as pool:
            list(pool.map(_resolve, orders))


def _resolve(order: Order) -> None:
    try:
        resolver.resolve(order)
    except Exception:  # one order that can't be handled must not hold up the others
        log.exception("order not resolved", extra={"order": str(order.pk)})
    finally:
        connection.close()


def poll() -> None:
    """Opens the book of a new account, and brings open orders up to date."""
    for account in BrokerAccount.served():
        try:
            # Under a tight request limit polls wait for what is more urgent.
            with priority(Priority.POLL):
                sync.ensure_open_book(account)
                sync.poll(account)
            end_alert(account.pk, code="polls_held_back", subject=account.name)
        except BrokerError as error:
            if isinstance(error, NotSent) and error.retry_after is not None:
                raise_alert(
                    account.pk,
                    code="polls_held_back",
                    subject=account.name,
                    severity=Alert.Severity.WARNING,
                    message=(
                        f"Polls are slowed down so that orders and cancels still go: {error} "
                        "Fills still come by the stream."
                    ),
                )
            # The next poll tries again; reconciliation reports how old the figures are.
            log.warning("poll failed", extra={"account": account.name, "error": error.message})
