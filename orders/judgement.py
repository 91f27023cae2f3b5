"""Judges what would be sent, under the account's lock, and concludes before the lock is let go:
so two orders can never spend the same money or sell the same shares.

No network call is made inside a transaction: figures that got too old while waiting for the lock
are asked for again with the lock let go.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from enum import Enum, auto
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction

from orders.rates import Rates
from orders.working import MARGIN, WorkingOrders, commits_beyond
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import AssetReport
from ordinis.numbers import plain
from risk import exchange, figures, trading
from risk.checks import Context, Finding, Intent, Violation, evaluate, reduces, sells_short
from risk.checks.short_sale import COLLAR as SHORT_COLLAR
from risk.exposure import exposures
from risk.limits import Limits, in_force

T = TypeVar("T")
_MOST_QUESTIONS = 4
_MOST_WAITS = 3
# Until what was acknowledged just now is surely in the figures.
_WAIT = MARGIN.total_seconds() + 0.05
_LONGEST_TURN = 15.0  # seconds, as long as the database would wait for the lock itself
# Seconds that limits are judged by as they were read.
_LIMITS_HOLD = 0.1
_turns: dict[int, threading.Lock] = {}
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of it: the order as it may be sent (one that may only reduce is cut to what is
    free), and what every check found."""

    intent: Intent
    context: Context
    findings: list[Finding]

    @property
    def violations(self) -> list[Violation]:
        return [finding for finding in self.findings if not finding.ok]

    @property
    def tries(self) -> bool:
        """Whether the order passes only as the one that tries, the breaker being half-open: whoever
        stores it claims the place."""
        may_probe = self.context.trading.may_probe and not self.violations
        return may_probe and not reduces(self.intent, self.context)

    @property
    def verdict(self) -> list[dict[str, Any]]:
        """For the order's record: code, limit, actual, and whether it passed."""
        return [
            {
                "code": finding.code,
                "limit": plain(finding.limit),
                "actual": plain(finding.actual),
                "before": plain(finding.before),
                "ok": finding.ok,
                **(
                    {"inputs": {name: plain(value) for name, value in finding.inputs.items()}}
                    if finding.inputs
                    else {}
                ),
            }
            for finding in self.findings
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be judged: an order for an account, with what is known of its symbol. `order_id`
    is None where nothing is to be sent."""

    account: BrokerAccount
    intent: Intent
    limits: Limits
    order_id: UUID | None
    strategy_id: int | None = None
    asset: AssetReport | None = None
    rates: Callable[[], Rates] = Rates
    reduce_only: bool = False
    # When the limits were read, on this process's monotonic clock.
    read_at: float = field(default_factory=time.monotonic)


def judge(
    question: Question,
    conclude: Callable[[BrokerAccount, Judged], T],
    *,
    first: Callable[[], T | None] = lambda: None,
    fresh: bool = False,
) -> T:
    """What `conclude` makes of the locked account and all findings; or what `first` finds, which is
    asked before anything else once the lock is held.

    Shared figures are enough while the order uses little of what is left; a denial, and an order
    that takes more than half of it, are only ever decided on figures that were asked for after the
    caller came, as is everything with `fresh`. What would be denied only because orders of the last
    moment may count twice waits until they do not. Raises BrokerUnavailable or BrokerRefused.
    """
    waits = 0 if fresh or question.order_id is None else _MOST_WAITS
    came = time.monotonic()
    since = came if fresh or settings.FIGURES_MAX_AGE == 0 else None
    for _ in range(_MOST_QUESTIONS + waits):
        found = _under_lock(question, conclude, first, came=came, since=since, may_wait=waits > 0)
        if not isinstance(found, _Again):
            return found
        if found is _Again.WAIT:
            waits -= 1
            time.sleep(_WAIT)
            came = time.monotonic()
        since = came
    raise BrokerUnavailable("Other orders of the account kept it busy for too long.")


class _Again(Enum):
    """Why nothing was concluded."""

    ASK = auto()  # the figures are too old, or not asked for anew where that is needed
    WAIT = auto()  # denied only for what may count twice


def _under_lock(
    question: Question,
    conclude: Callable[[BrokerAccount, Judged], T],
    first: Callable[[], T | None],
    *,
    came: float,
    since: float | None,
    may_wait: bool,
) -> T | _Again:
    account = question.account
    with _turn(account.pk):
        snapshot = figures.shared(account, since=since, came=came)
        with transaction.atomic():
            locked = BrokerAccount.lock(account.pk)
            if (found := first()) is not None:
                return found
            if snapshot.is_older_than(figures.oldest()):
                return _Again.ASK
            if time.monotonic() - question.read_at > _LIMITS_HOLD:
                # Whoever tightened a limit while this stood in line is obeyed.
                limits = in_force(locked.pk, question.strategy_id)
                question = replace(question, limits=limits)
            orders = WorkingOrders.of(locked.pk, snapshot.asked_at)
            judged = assess(question, locked, snapshot, orders)
            if question.order_id is None:
                transaction.set_rollback(True)  # a preview leaves no trace, whatever it meets
            if snapshot.began < came and _is_close(judged):
                return _Again.ASK
            if may_wait and _gains_by_waiting(question, judged, locked, snapshot, orders):
                return _Again.WAIT
            return conclude(locked, judged)


@contextmanager
def _turn(account_id: int) -> Iterator[None]:
    """One caller of this process at a time goes for the account's lock, so that its figures are not
    too old once it is held; what one asked for serves those who stood in line."""
    turn = _turns.setdefault(account_id, threading.Lock())
    if not turn.acquire(timeout=_LONGEST_TURN):
        raise BrokerUnavailable("Other orders of the account kept it busy for too long.")
    try:
        yield
    finally:
        turn.release()


def _gains_by_waiting(
    question: Question,
    judged: Judged,
    locked: BrokerAccount,
    snapshot: figures.Figures,
    orders: WorkingOrders,
) -> bool:
    """Whether an order that is denied would pass, or one that is cut would be cut less, without
    what may be counted twice."""
    is_cut = judged.intent.qty < question.intent.qty
    if not (judged.violations or is_cut) or orders == (settled := orders.settled):
        return False
    later = assess(question, locked, snapshot, settled)
    return not later.violations and (
        bool(judged.violations) or later.intent.qty > judged.intent.qty
    )


def reserved(account_id: int, asked_at: datetime) -> Decimal:
    """Dollars that orders commit beyond the figures of a snapshot (`reserved` of GET /account)."""
    return commits_beyond(account_id, asked_at).money


def assess(
    question: Question,
    locked: BrokerAccount,
    snapshot: figures.Figures,
    orders: WorkingOrders,
) -> Judged:
    """What the checks find of an order. The account is locked."""
    context = _context(question, locked, snapshot, orders)
    intent, cut = _cut(question, context)
    if sells_short(intent, context) and intent.ask is not None:
        # Its limit is a floor and bounds nothing: what counts is what a share costs.
        told = snapshot.positions.get(intent.symbol)
        price = max(intent.ask, (told and told.current_price) or _ZERO) * SHORT_COLLAR
        intent = replace(intent, worst_price=max(intent.worst_price, price))
    found = [*_barred(locked, intent), *cut, *evaluate(intent, context, question.limits)]
    return Judged(intent=intent, context=context, findings=found)


def _is_close(judged: Judged) -> bool:
    return any(not finding.ok or finding.is_thin for finding in judged.findings)


def _cut(question: Question, context: Context) -> tuple[Intent, list[Finding]]:
    """An order that may only reduce is for no more than what is free of the position (SPEC K3)."""
    intent = question.intent
    if not question.reduce_only:
        return intent, []
    free = context.free_to_sell if intent.side == "sell" else context.free_to_cover
    qty = min(intent.qty, free)
    if not _takes_fractions(question):
        qty = qty.to_integral_value(ROUND_DOWN)
    finding = Finding(
        code="nothing_to_reduce",
        ok=qty > 0,
        limit=free,
        actual=intent.qty,
        message=""
        if qty > 0
        else f"{intent.symbol}: the order may only reduce, and nothing is free to "
        f"{'sell' if intent.side == 'sell' else 'buy back'} ({plain(abs(context.held_qty))} held, "
        f"{plain(abs(context.free_qty))} available at the broker).",
    )
    return (replace(intent, qty=qty) if qty > 0 else intent), [finding]


def _takes_fractions(question: Question) -> bool:
    """Whether the broker takes a part of a share on these terms (`orders.terms`)."""
    intent, asset = question.intent, question.asset
    if intent.time_in_force != "day" or intent.type == "trailing_stop":
        return False
    return intent.qty % 1 != 0 or (asset is not None and asset.fractionable)


def _barred(account: BrokerAccount, intent: Intent) -> list[Violation]:
    """Nothing is sent into a cancel of all: it would be cancelled, or escape it."""
    until = account.cancelling_until
    if until is None or until < account.database_time:
        return []
    if account.cancelling_symbol not in ("", intent.symbol):
        return []
    return [
        Violation(
            code="cancelling_all",
            ok=False,
            message="All open orders are being cancelled. Send it again when that is done.",
            limit=_ZERO,
            actual=Decimal(1),
        )
    ]


def _context(
    question: Question,
    locked: BrokerAccount,
    snapshot: figures.Figures,
    orders: WorkingOrders,
) -> Context:
    symbol, side = question.intent.symbol, question.intent.side
    held, sent = snapshot.positions.get(symbol), question.rates()
    held_qty = held.qty if held else _ZERO
    in_each = exposures(snapshot.worth, orders.working(snapshot.shares))
    return Context(
        account=snapshot.account,
        symbol=symbol,
        held_qty=held_qty,
        free_qty=held.qty_available if held else _ZERO,
        committed=orders.committed,
        worth=in_each,
        unpriced=snapshot.unpriced,
        sectors=snapshot.sectors_of({*in_each, symbol}),
        unresolved_symbols=orders.unresolved,
        opposite=orders.against(symbol, side, held_qty),
        asset=question.asset,
        trading=trading.under_lock(locked, snapshot, question.limits),
        session=exchange.session_at(locked.database_time),
        local_time=locked.database_time.astimezone(exchange.NEW_YORK),
        keeps_auction_hours=locked.mode != BrokerAccount.Mode.SIMULATED,
        strategy_orders=sent.strategy,
        account_orders=sent.account,
    )
