"""The kill switch (SPEC K8): halts an account, cancels every open order, and where it is asked for
bars new orders at the broker itself; says of each step what is confirmed and what is not.

The halt is committed before anything else is tried, and nothing that fails later undoes it. Needs
no queue, clock or worker. Never resumes by itself, and never lets somebody resume what they did
not see.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from django.db import transaction

from orders import statuses
from orders.cancel_all import Outcome, cancel_all
from orders.errors import OrderCancellationError
from orders.lifecycle import Origin, Source
from orders.models import Order, OrderHistory
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.errors import BrokerError
from ordinis.failpoints import failpoint
from risk import trading
from risk.models import TradingChange, TradingControl
from risk.states import ACTIVE, HALTED, REDUCING, TradingState

log = logging.getLogger("ordinis.orders")

# What the history of each order that a halt cancels begins its reason with.
_WHY: Final = "Trading is halted"
# The wish of each cancel is stored at the latest so long after the halt.
_MARKED_WITHIN: Final = timedelta(minutes=2)


class AlreadyHalted(Exception):
    """The account is halted: reducing would loosen that."""


class Moved(Exception):
    """Somebody has set the trading state since it was looked at. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """What the broker's own setting says after it was to be changed; None when it can't be read.
    `problem` says what is not as it was wanted, and what to do."""

    suspended: bool | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """What a halt has brought about. `began` is when it began, on this machine's clock;
    `suspended_at_broker` is None where that was not asked for or could not be read."""

    account: BrokerAccount
    began: datetime
    state: TradingState
    outcomes: list[Outcome]
    suspended_at_broker: bool | None
    unconfirmed: list[str]

    @property
    def confirmed(self) -> bool:
        return not self.unconfirmed


def halt(
    account: BrokerAccount,
    *,
    reason: str,
    actor: str,
    cancel_open_orders: bool = True,
    suspend_at_broker: bool = False,
    source: Source = Source.OPERATOR,
) -> Halted:
    """Halts, then cancels, then bars. Safe to call again, and twice at once: what stands already is
    left, what is still open is asked for again. Raises ValueError without reason or actor."""
    began = datetime.now(UTC)
    trading.set_state(account.pk, HALTED, reason=reason, actor=actor)
    failpoint("halt.committed")
    outcomes: list[Outcome] = []
    unconfirmed: list[str] = []
    if cancel_open_orders:
        outcomes, unconfirmed = _cancel(account, Origin(source, actor, f"{_WHY}: {reason}"))
    failpoint("halt.cancelled")
    suspended = None
    if suspend_at_broker:
        barred = suspend(account, on=True, reason=reason, actor=actor)
        suspended = barred.suspended
        unconfirmed += [barred.problem] if barred.problem else []
    return Halted(
        account=account,
        began=began,
        state=trading.current(account.pk),
        outcomes=outcomes,
        suspended_at_broker=suspended,
        unconfirmed=unconfirmed,
    )


def halt_all(
    accounts: Sequence[BrokerAccount],
    *,
    reason: str,
    actor: str,
    cancel_open_orders: bool = True,
    suspend_at_broker: bool = False,
) -> Iterator[Halted]:
    """Halts each before it cancels anything, and yields what has come of one after the other."""
    for account in accounts:
        trading.set_state(account.pk, HALTED, reason=reason, actor=actor)
    for account in accounts:
        yield halt(
            account,
            reason=reason,
            actor=actor,
            cancel_open_orders=cancel_open_orders,
            suspend_at_broker=suspend_at_broker,
        )


def _cancel(account: BrokerAccount, origin: Origin) -> tuple[list[Outcome], list[str]]:
    """How each order ended, and what is not confirmed."""
    try:
        outcomes = cancel_all(account, origin)
    except OrderCancellationError as error:
        return _all_pending(account), [
            f"{error} Orders that were not placed by Ordinis are not asked for again: look at them "
            "in the broker's own app."
        ]
    except Exception:  # whatever it is: the halt stands, and barring is still to be tried
        log.exception("halted, but not all cancelled", extra={"account": account.name})
        return _all_pending(account), [
            "Cancelling broke off for an error of Ordinis itself (its log says which). Halt again, "
            "or cancel in the broker's own app."
        ]
    return outcomes, _not_confirmed(outcomes)


def _all_pending(account: BrokerAccount) -> list[Outcome]:
    rows = Order.objects.select_related("account", "strategy").filter(account=account)
    return [
        Outcome(
            order=order,
            broker_order_id=order.broker_order_id,
            outcome="pending",
            filled_qty=order.filled_qty,
            detail="The broker could not be asked: it may fill."
            + (" It is asked for until it has ended." if order.cancel_requested_at else ""),
        )
        for order in rows.exclude(status__in=sorted(statuses.CLOSED))
    ]


def _not_confirmed(outcomes: list[Outcome]) -> list[str]:
    pending = [each for each in outcomes if each.outcome == "pending"]
    failed = [each for each in outcomes if each.outcome == "failed"]
    found = []
    if pending:
        found.append(
            f"{len(pending)} of {len(outcomes)} orders are not confirmed cancelled: they may fill. "
            "Those of Ordinis are asked for until they have ended; look at others in the broker's "
            "own app."
        )
    if failed:
        found.append(
            f"The broker refuses to cancel {len(failed)} of {len(outcomes)} orders "
            f"({'; '.join(sorted({each.detail for each in failed}))}): they may fill. Look at them "
            "in the broker's own app."
        )
    return found


def suspend(account: BrokerAccount, *, on: bool, reason: str, actor: str) -> Suspension:
    """Bars new orders at the broker itself, or allows them again; believed only when the broker's
    configuration, read afterwards, says so. The wish is stored before the broker is asked.

    Raises ValueError without reason or actor.
    """
    if not reason.strip() or not actor.strip():
        raise ValueError("Say why, and who you are: it stays in the history.")
    wanted, asked = ("barred", "to be barred") if on else ("allowed", "to be allowed")
    _note(account, "", asked, reason, actor)
    failpoint("suspend.recorded")
    error = ""
    suspended: bool | None = None
    try:
        broker = broker_for(account)
        try:
            broker.suspend_trade(on)
        except BrokerError as lost:  # it may have been taken up all the same: that is read now
            error = lost.message
        suspended = broker.configuration().suspend_trade
    except BrokerError as unread:
        error = error or unread.message
    if suspended is on:
        _note(account, asked, wanted, f"The broker's configuration says so. {reason}", actor)
        return Suspension(suspended=suspended)
    verb = "bars" if on else "allows"
    problem = f"It is not confirmed that the broker {verb} new orders. {error}".strip()
    problem += " Try it again, or set it in the broker's own app."
    _note(account, asked, "not confirmed", f"{problem} ({reason})", actor)
    return Suspension(suspended=suspended, problem=problem)


def _note(account: BrokerAccount, before: str, after: str, reason: str, actor: str) -> None:
    TradingChange.objects.create(
        account=account,
        kind=TradingChange.Kind.SUSPEND,
        from_state=before,
        to_state=after,
        reason=reason,
        actor=actor,
    )


def reduce(account: BrokerAccount, *, reason: str, actor: str) -> TradingState:
    """Sets an active account to reducing. Raises AlreadyHalted, with nothing changed."""
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        if _set_by_person(account)[0] == HALTED:
            raise AlreadyHalted(
                f"{account} is halted, which is stricter than reducing. Nothing was changed: "
                "whoever may resume trading can loosen it on the console's Trading control page."
            )
        return trading.set_state(account.pk, REDUCING, reason=reason, actor=actor)


def loosen(
    account: BrokerAccount, state: str, *, seen: datetime | None, reason: str, actor: str
) -> TradingState:
    """Resumes (active), or lets a halted account reduce. `seen` is when the state that the person
    looked at was set: a halt that came later is not undone. Raises Moved."""
    assert state in (ACTIVE, REDUCING), "a halt loosens nothing"
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        if _set_by_person(account)[1] != seen:
            raise Moved(
                "Somebody has set the trading state since you looked. Nothing was changed: look "
                "at it again."
            )
        return trading.set_state(account.pk, state, reason=reason, actor=actor)


def _set_by_person(account: BrokerAccount) -> tuple[str, datetime | None]:
    """The state that a person set, and when."""
    rows = TradingControl.objects.filter(account=account).values_list("state", "set_at")
    return rows.first() or (ACTIVE, None)


def touched(account: BrokerAccount, began: datetime) -> list[Order]:
    """The orders that a halt which began then has marked, or closed before they left, and whatever
    else is open: how each stands now, open ones first."""
    asked = OrderHistory.objects.filter(
        received_at__range=(began, began + _MARKED_WITHIN),
        reason__startswith=_WHY,
        order__account=account,
    )
    rows = Order.objects.filter(account=account)
    still = rows.exclude(status__in=sorted(statuses.CLOSED))
    # Asked one after the other: each has its index.
    wanted = {*asked.values_list("order_id", flat=True), *still.values_list("pk", flat=True)}
    found = rows.select_related("strategy").filter(pk__in=wanted)
    return sorted(found, key=lambda order: (not order.is_open, order.symbol, order.created_at))
