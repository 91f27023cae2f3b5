"""What the broker says may be done with a symbol, remembered for a while.

A help for the checks before an order and never their ground: when the broker can't be asked, the
answer is None and the order goes on. Never called inside a transaction.
"""

import threading
import time
from dataclasses import dataclass, field

from django.db import transaction

from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.broker.port import AssetReport

_KEPT = 3600.0  # seconds
# What may soon be otherwise: no answer, no such symbol, or one that does not trade now.
_KEPT_BRIEFLY = 30.0
_MOST = 2000  # symbols; those not asked about for longest go first


@dataclass(slots=True)
class _Question:
    """What is known of one symbol in one account. Whoever holds the lock asks; those who come
    meanwhile wait for the same answer."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answer: AssetReport | None = None
    good_until: float = 0.0


_questions: dict[tuple[int, str], _Question] = {}
_guard = threading.Lock()


def asset_of(account: BrokerAccount, symbol: str) -> AssetReport | None:
    """The broker's word on a symbol, at most an hour old; None where there is none now."""
    assert not transaction.get_connection().in_atomic_block, "no network in a transaction"
    key = (account.pk, symbol)
    with _guard:
        question = _questions.pop(key, None) or _Question()
        _questions[key] = question
        if len(_questions) > _MOST:
            del _questions[next(iter(_questions))]
    with question.lock:
        if time.monotonic() >= question.good_until:
            question.answer = _ask(account, symbol)
            lasting = question.answer is not None and question.answer.tradable
            question.good_until = time.monotonic() + (_KEPT if lasting else _KEPT_BRIEFLY)
        return question.answer


def _ask(account: BrokerAccount, symbol: str) -> AssetReport | None:
    try:
        return broker_for(account).asset(symbol)
    except (BrokerUnavailable, BrokerRefused):
        return None


def forget() -> None:
    """Everything is asked anew (tests, whose brokers come and go)."""
    with _guard:
        _questions.clear()
