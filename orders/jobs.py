"""What the clock calls: brings orders to proof and up to date. Safe to run twice at once."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from django.db import connection

from orders import cancelling, dependents, resolver, stream_store, sync
from orders.errors import OrderError
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.broker.budget import Priority, priority
from ordinis.broker.errors import BrokerError, NotSent
from risk.figures import database_now

log = logging.getLogger("ordinis.orders")

T = TypeVar("T")
_LOOK_UPS_AT_ONCE = 8


def resolve() -> None:
    """Looks up every order whose outcome is unknown, several at once: behind a slow broker none
    must wait for all the others."""
    _each(resolver.resolve, resolver.due(database_now()))


def watch() -> None:
    """Looks up orders that failed lately: one may have reached the broker after all."""
    with priority(Priority.POLL):
        _each(resolver.watch, resolver.watched(database_now()))


def follow_up() -> None:
    """Sends or closes dependent orders whose time has come: what a process that died had left."""
    _each(dependents.advance, dependents.due(database_now()))
    dependents.end_alerts()


def pursue_cancels() -> None:
    """Asks again for cancels that have not ended. A job of its own: nothing goes before it."""
    with priority(Priority.CANCEL):
        _each(cancelling.pursue, cancelling.due(database_now()))
    cancelling.end_alerts()


def _each(work: Callable[[T], object], orders: list[T]) -> None:
    if orders:
        with ThreadPoolExecutor(_LOOK_UPS_AT_ONCE) as pool:
            looked_up = [pool.submit(copy_context().run, _one, work, order) for order in orders]
        for future in looked_up:
            future.result()


def _one(work: Callable[[T], object], order: T) -> None:
    try:
        work(order)
    except OrderError as error:  # it was said; the next run tries again
        log.warning("order not handled", extra={"order": _id(order), "error": str(error)})
    except Exception:  # one order that can't be handled must not hold up the others
        log.exception("order not handled", extra={"order": _id(order)})
    finally:
        connection.close()


def _id(order: object) -> str:
    return str(order.pk if isinstance(order, Order) else order)


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
        except Exception:  # one account that can't be handled must not hold up the others
            log.exception("poll failed", extra={"account": account.name})


def forget() -> None:
    """Deletes the stream's messages that are too old to be asked about."""
    stream_store.forget(database_now())
