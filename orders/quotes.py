"""The broker's own ask of this moment, for orders whose price only the strategy has told.

A help for the judgement and never its ground: where the broker gives no usable quote in time the
answer is None and the order goes on. Never raises for the broker's sake, and is never called inside
a transaction.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.broker.port import Broker, QuoteReport

log = logging.getLogger(__name__)
# Nobody waits for longer, whatever takes so long: name, connection or answer.
_PATIENCE = 2.0  # seconds
_KEPT = 1.0  # seconds, from when it was asked for
_WIDEST = 2  # times the bid; an ask above it is a placeholder, as of a maker who does not trade
_MOST = 2000  # symbols; those not asked about for longest go first


@dataclass(frozen=True, slots=True)
class _Question:
    """One question to the broker, under way or answered; `began` is monotonic."""

    began: float
    answer: Future[Decimal | None]


# Threads of its own: they outlast a caller who has stopped waiting, and touch no database.
_pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="quotes")
_questions: dict[tuple[Broker, str], _Question] = {}
_guard = threading.Lock()


def ask_of(account: BrokerAccount, symbol: str) -> Decimal | None:
    """What a share costs now by the broker's own quote, in dollars, asked for at most a second ago;
    None where it gives none that can be used. Callers of the same moment share one question."""
    assert not transaction.get_connection().in_atomic_block, "no network in a transaction"
    try:
        return _question(broker_for(account), symbol).answer.result(timeout=_PATIENCE)
    except TooLate:
        log.warning("The broker told no quote of %s within %g s.", symbol, _PATIENCE)
    except (BrokerError, RuntimeError) as error:  # another broker's account; a process that ends
        log.warning("The broker can't be asked for a quote of %s: %s", symbol, error)
    return None


def forget() -> None:
    """Everything is asked anew (tests, whose prices jump)."""
    with _guard:
        _questions.clear()


def _question(broker: Broker, symbol: str) -> _Question:
    now = time.monotonic()
    with _guard:
        found = _questions.pop((broker, symbol), None)
        if found is None or now - found.began > _KEPT:
            found = _Question(began=now, answer=_pool.submit(_ask, broker, symbol, now))
        _questions[broker, symbol] = found
        if len(_questions) > _MOST:
            del _questions[next(iter(_questions))]
        return found


def _ask(broker: Broker, symbol: str, began: float) -> Decimal | None:
    if time.monotonic() - began > _PATIENCE:
        return None  # it stood behind others for so long that nobody waits any more
    try:
        quote = broker.quote(symbol)
    except BrokerError as error:
        log.warning("The broker told no quote of %s: %s", symbol, error.message)
        return None
    except Exception:  # a fault of ours must not stand in the way of an order either
        log.exception("A quote of %s could not be asked for.", symbol)
        return None
    return quote.ask if quote is not None and is_usable(quote) else None


def is_usable(quote: QuoteReport) -> bool:
    """Both sides there, not crossed, and not absurdly far from one another."""
    return 0 < quote.bid <= quote.ask <= quote.bid * _WIDEST
