"""Fresh broker figures to judge orders by: account and positions, asked for side by side.

Shared by callers of the same moment and never older than the configured age. Every snapshot
carries the database's time at which it was asked for: only that can be compared with what other
processes recorded. Never called inside a transaction.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property

from django.conf import settings
from django.db import connection, transaction

from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable
from ordinis.broker.port import AccountReport, Listing, PositionReport
from positions.sectors import sector_of
from risk.exposure import Worth, held, worth


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The broker's account and positions, and when they were asked for (database clock)."""

    account: AccountReport
    positions: dict[str, PositionReport]
    asked_at: datetime
    # This process's monotonic clock when the answer was there. Freshness is judged by it: a
    # broker that takes long to answer must not make every answer too old to use.
    received: float
    # The same clock when it was asked for, for callers that share the question.
    began: float = 0.0

    @cached_property
    def shares(self) -> dict[str, Decimal]:
        """Signed shares of each position."""
        return {symbol: position.qty for symbol, position in self.positions.items()}

    @cached_property
    def values(self) -> dict[str, Decimal]:
        """Signed dollars of each position that has a price."""
        found = {symbol: worth(position) for symbol, position in self.positions.items()}
        return {symbol: value for symbol, value in found.items() if value is not None}

    @cached_property
    def worth(self) -> dict[str, Worth]:
        """What is in each symbol by them alone."""
        return {symbol: held(value) for symbol, value in self.values.items()}

    @cached_property
    def _sectors(self) -> dict[str, str]:
        return {}

    def sectors_of(self, symbols: set[str]) -> dict[str, str]:
        """What each symbol counts towards, read once for as long as these figures are used."""
        if missing := symbols - self._sectors.keys():
            self._sectors.update(sector_of(missing))
        return self._sectors

    @cached_property
    def unpriced(self) -> frozenset[str]:
        """Symbols that are held and have none."""
        held = {symbol for symbol, position in self.positions.items() if position.qty}
        return frozenset(held - set(self.values))

    def is_older_than(self, seconds: float) -> bool:
        return time.monotonic() - self.received > seconds


def database_now() -> datetime:
    """The database's clock, the one that all processes share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    assert isinstance(now, datetime)
    return now


@dataclass(slots=True)
class _Question:
    """One question under way for an account, and how the last one failed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    failed_at: float = 0.0
    error: BrokerError | None = None


# Two calls at once for each caller that asks; bounded, so that a slow broker can't eat threads.
_pool = ThreadPoolExecutor(max_workers=10, thread_name_prefix="figures")
_shared: dict[int, Figures] = {}
_questions: dict[int, "_Question"] = {}
_guard = threading.Lock()


def ask(account: BrokerAccount) -> Figures:
    """Asks the broker now. Raises BrokerUnavailable or BrokerRefused."""
    assert not transaction.get_connection().in_atomic_block, "no network in a transaction"
    broker = broker_for(account)
    began = time.monotonic()
    asked_at = database_now()
    positions = _pool.submit(copy_context().run, _closing, broker.positions)
    try:
        report = broker.account()
    finally:
        # Even when the account failed: the other call must not outlive the question.
        held = positions.result()
    if not held.complete:
        raise BrokerUnavailable(f"The broker's positions could not all be read: {held.reason}")
    if account.account_number and report.account_number != account.account_number:
        raise BrokerRefused(
            f"The broker answers for account {report.account_number}, but this book is of account "
            f"{account.account_number}. Check the keys."
        )
    figures = Figures(
        account=report,
        positions={position.symbol: position for position in held.items},
        asked_at=asked_at,
        received=time.monotonic(),
        began=began,
    )
    with _guard:
        known = _shared.get(account.pk)
        if known is None or known.began < began:
            _shared[account.pk] = figures
    return figures


def _closing(call: Callable[[], Listing[PositionReport]]) -> Listing[PositionReport]:
    """A pool's thread keeps no database connection that the call may have opened."""
    try:
        return call()
    finally:
        connection.close()


def are_at_hand(account: BrokerAccount) -> bool:
    """Whether `shared` would answer without asking the broker."""
    figures = _shared.get(account.pk)
    return figures is not None and not figures.is_older_than(settings.FIGURES_MAX_AGE)


def shared(
    account: BrokerAccount, *, since: float | None = None, came: float | None = None
) -> Figures:
    """Figures no older than the configured age; with `since` (monotonic seconds) ones that were
    asked for at that moment or after it. Callers of the same moment share one question, and its
    failure: behind a broker that does not answer nobody waits for more than one. `came` is when the
    caller did, if that is not now."""
    came = time.monotonic() if came is None else came
    if found := _usable(account, since):
        return found
    with _guard:
        question = _questions.setdefault(account.pk, _Question())
    with question.lock:
        if question.failed_at > came and question.error is not None:
            raise question.error
        if found := _usable(account, since):
            return found
        try:
            return ask(account)
        except BrokerError as error:
            question.failed_at, question.error = time.monotonic(), error
            raise


def oldest() -> float:
    """Seconds that figures may be old when an order is judged by them."""
    return max(settings.FIGURES_MAX_AGE, 1.0)


def _usable(account: BrokerAccount, since: float | None) -> Figures | None:
    found = _shared.get(account.pk)
    if found is None or (since is not None and found.began < since):
        return None
    most = settings.FIGURES_MAX_AGE if since is None else oldest()
    return None if found.is_older_than(most) else found
