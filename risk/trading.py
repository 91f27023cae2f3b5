"""What an account's orders may do now: the strictest of what a person set, the circuit breaker and
the books' age (SPEC K6, K7). Everything is in rows: a restart changes nothing (invariant 8).

Only this module writes `TradingControl`; every change is made under the account's lock and leaves
a `TradingChange`. Never asks the broker. Never holds up a cancel: no state bars those.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import DateTimeField, Func

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.numbers import plain
from risk import breaker
from risk.breaker import Outcome
from risk.exchange import NEW_YORK, exchange_day
from risk.figures import Figures
from risk.limit_values import Limits
from risk.limits import in_force
from risk.models import RiskLimits, TradingChange, TradingControl
from risk.states import ACTIVE, HALTED, REDUCING, STRICTNESS, Reason, TradingState

Kind = TradingChange.Kind
_CLOSED: Final = TradingControl.Breaker.CLOSED.value
_OPEN: Final = TradingControl.Breaker.OPEN.value
_HALF_OPEN: Final = TradingControl.Breaker.HALF_OPEN.value

_BREAKER: Final = "breaker"  # the actor of what it does by itself
_BY_ORDERS: Final = "orders"  # the subject of its alert where outcomes opened it
_PROBE_FAILED: Final = "probe_failed"
_MOST_TRIPS: Final = 1000
_BOOKS_FLOOR: Final = timedelta(minutes=5)
# Dollars that the columns can hold; more is no account's equity.
_ABSURD: Final = Decimal(10) ** 15


class ProbeTaken(Exception):
    """Another order tries already, or the breaker is not half-open any more."""


# --- asked on the way of an order ------------------------------------------------------------


def under_lock(account: BrokerAccount, figures: Figures, limits: Limits) -> TradingState:
    """The state in force, judged by these figures. Called with the account locked, for every
    order; writes only what has changed."""
    control = _control_of(account)
    with _kept(control):
        found = _judge_levels(
            control,
            equity=figures.account.equity,
            buying_power=figures.account.buying_power,
            asked_at=figures.asked_at,
            limits=limits,
        )
    return _effective(control, levels=found, limits=limits)


def claim_probe(account: BrokerAccount, order_id: UUID) -> None:
    """This order is the one that tries. In the transaction that stores it, with the account
    locked. Raises ProbeTaken."""
    control = _control_of(account)
    if control.breaker != _HALF_OPEN or control.probe is not None:
        raise ProbeTaken(f"No order may try now: the breaker is {control.breaker}.")
    control.probe = order_id
    control.save(update_fields=("probe",))
    _note(control, Kind.PROBE, _HALF_OPEN, _HALF_OPEN, f"Order {order_id} tries.")


def current(account_id: int) -> TradingState:
    """The state by what is stored: without lock, without the broker."""
    control = _read(account_id)
    if control is None:
        account = BrokerAccount.objects.annotate(read_at=_Clock()).get(pk=account_id)
        control = TradingControl(account=account)
        control.clock = account.read_at
    return _by_rows(control)


def current_of_all() -> dict[int, TradingState]:
    """The same for every account, by its key, in one query."""
    accounts = BrokerAccount.objects.select_related("trading_control").annotate(read_at=_Clock())
    states = {}
    for account in accounts:
        control = getattr(account, "trading_control", None) or TradingControl()
        control.account, control.clock = account, account.read_at
        states[account.pk] = _by_rows(control)
    return states


# --- a person's hand -------------------------------------------------------------------------


def set_state(account_id: int, state: str, *, reason: str, actor: str) -> TradingState:
    """Sets what a person wants: active (resume), reducing or halted. What stands already in the
    same words is left; another's halt is one more, which whoever resumes must have seen."""
    if state not in STRICTNESS:
        raise ValueError(f"{state!r} is no trading state: choose of {', '.join(STRICTNESS)}.")
    _check_said(reason, actor)
    with _locked(account_id) as control:
        before = control.state
        if (before, control.reason, control.actor) != (state, reason, actor):
            control.state, control.reason, control.actor = state, reason, actor
            control.set_at = control.clock
            _note(control, Kind.PERSON, before, state, reason, actor=actor)
            _tell_of_halt(control)
        return _by_rows(control)


def override(account_id: int, *, until: datetime, reason: str, actor: str) -> TradingState:
    """Suspends the breaker until a moment. What opened it counts no more; when the override ends,
    what failed meanwhile counts, and levels that still hold."""
    _check_said(reason, actor)
    with _locked(account_id) as control:
        if until <= control.clock:
            raise ValueError("An override ends in the future: give a later moment.")
        figures = {"reasons": control.breaker_reasons, "levels": control.levels}
        why = f"Until {_shown(until)}: {reason}"
        before = _breaker_shown(control)
        _close(control)
        control.override_until, control.override_reason = until, reason
        control.override_actor = actor
        _note(control, Kind.OVERRIDE, before, "overridden", why, actor=actor, figures=figures)
        raise_alert(
            account_id,
            code="breaker_overridden",
            subject=control.account.name,
            severity=Alert.Severity.WARNING,
            message=f"{actor} overrides the circuit breaker until {_shown(until)}: {reason}",
        )
        return _by_rows(control)


def end_override(account_id: int, *, reason: str, actor: str) -> TradingState:
    """Ends an override before its time; without one nothing changes."""
    _check_said(reason, actor)
    with _locked(account_id) as control:
        if control.override_until is not None:
            _end_override(control, reason, actor=actor)
        return _by_rows(control)


# --- what became of orders -------------------------------------------------------------------


def note_outcomes(account_id: int, outcomes: list[Outcome], limits: Limits) -> None:
    """Opens the breaker where these outcomes say so; closes it, or opens it for longer, by the
    outcome of the order that tried. Safe to call with the same outcomes again."""
    seen = _read(account_id)
    if seen is not None and not _concerned(seen, outcomes, limits):
        return  # looked at without the lock: nothing would follow
    with _locked(account_id) as control:
        tried = _of_probe(control, outcomes)
        if tried is not None and not tried.failed:
            _succeed(control)
        elif tried is not None:
            _fail_again(control, tried, limits)
        elif reasons := _tripped(control, outcomes, limits):
            _trip(control, reasons, limits, "The breaker opened.")


def free_probe(account_id: int, order_id: UUID, why: str) -> None:
    """The order that tried ended without a word of the broker: another one may try."""
    with _locked(account_id) as control:
        if control.probe == order_id:
            control.probe = None
            _note(control, Kind.PROBE, _HALF_OPEN, _HALF_OPEN, f"{why} Another order may try.")


def review(account_id: int) -> None:
    """What the clock brings: ends of cool-down and override; levels by the stored figures; the
    books' age."""
    limits = in_force(account_id)
    with _locked(account_id) as control:
        account = control.account
        equity, buying_power, as_of = account.equity, account.buying_power, account.as_of
        if equity is not None and buying_power is not None and as_of is not None:
            found = _judge_levels(
                control, equity=equity, buying_power=buying_power, asked_at=as_of, limits=limits
            )
            if [reason.code for reason in found] == _codes(control.levels):
                control.levels = _storable(found)  # the same levels, the figures of today
        _tell_of_books(account, _books_are_old(control, limits))


# --- the row ---------------------------------------------------------------------------------


class _Clock(Func):
    """The database's time at this moment, not at the transaction's begin: it may have waited."""

    function = "clock_timestamp"
    output_field = DateTimeField()


def _read(account_id: int) -> TradingControl | None:
    rows = TradingControl.objects.select_related("account").annotate(read_at=_Clock())
    control = rows.filter(account_id=account_id).first()
    if control is not None:
        control.clock = control.read_at
    return control


def _control_of(account: BrokerAccount) -> TradingControl:
    """The account's row, made where there is none. The account is locked."""
    rows = TradingControl.objects.annotate(read_at=_Clock()).filter(account=account)
    control = rows.first()
    if control is None:
        TradingControl.objects.create(account=account)
        control = rows.get()
    control.clock = control.read_at
    control.account = account
    return control


@contextmanager
def _locked(account_id: int) -> Iterator[TradingControl]:
    """The row under the account's lock, up to the present; stored at the end."""
    with transaction.atomic():
        control = _control_of(BrokerAccount.lock(account_id))
        with _kept(control):
            yield control


@contextmanager
def _kept(control: TradingControl) -> Iterator[None]:
    """Brings the row up to the present, and stores at the end what has changed of it."""
    before = _values(control)
    _pass_time(control)
    yield
    if _values(control) != before:
        control.save()


def _values(control: TradingControl) -> list[Any]:
    return [getattr(control, field.attname) for field in control._meta.concrete_fields]


def _pass_time(control: TradingControl) -> None:
    """Ends what has come to its end."""
    if control.override_until is not None and control.override_until <= control.clock:
        _end_override(control, "Its time is over.", actor=_BREAKER)
    if control.breaker == _OPEN and _cooled_down(control):
        control.breaker = _HALF_OPEN
        _note(control, Kind.PROBE, _OPEN, _HALF_OPEN, "The cool-down is over: one order may try.")
        _alert(
            control, "The cool-down is over: the next order may try, and decides by its outcome."
        )


def _cooled_down(control: TradingControl) -> bool:
    return control.retry_at is None or control.retry_at <= control.clock


def _overridden(control: TradingControl) -> bool:
    return control.override_until is not None and control.override_until > control.clock


# --- the effective state ---------------------------------------------------------------------


def _by_rows(control: TradingControl) -> TradingState:
    return _effective(control, levels=_stored(control.levels))


def _effective(
    control: TradingControl, *, levels: list[Reason], limits: Limits | None = None
) -> TradingState:
    others = [*_by_person(control), *_books_are_old(control, limits)]
    tripped: list[Reason] = []
    shown = _CLOSED
    if _overridden(control):
        others.append(_override_reason(control))
    else:
        shown = control.breaker
        if shown == _OPEN and _cooled_down(control):
            shown = _HALF_OPEN
        if shown != _CLOSED:
            tripped = _stored(control.breaker_reasons)
        others += levels
    may_try = shown == _HALF_OPEN and _strictest(others) == ACTIVE
    return TradingState(
        state=_strictest([*others, *tripped]),
        breaker=_OPEN if levels and not _overridden(control) else shown,
        reasons=(*others, *tripped),
        until=_until(control, levels),
        may_probe=may_try and control.probe is None,
        probe=control.probe if may_try else None,
    )


def _strictest(reasons: Iterable[Reason]) -> str:
    return max((reason.state for reason in reasons), key=STRICTNESS.index, default=ACTIVE)


def _until(control: TradingControl, levels: list[Reason]) -> datetime | None:
    if _overridden(control):
        return control.override_until
    waits = control.breaker == _OPEN and not levels and control.state == ACTIVE
    return control.retry_at if waits else None


def _by_person(control: TradingControl) -> list[Reason]:
    if control.state == ACTIVE:
        return []
    message = f"{control.actor} set the account to {control.state}: {_ended(control.reason)}"
    return [Reason(code="set_by_person", state=control.state, message=message)]


def _override_reason(control: TradingControl) -> Reason:
    assert control.override_until is not None, "it is overridden"
    return Reason(
        code="breaker_overridden",
        state=ACTIVE,
        message=f"{control.override_actor} overrides the breaker until "
        f"{_shown(control.override_until)}: {_ended(control.override_reason)}",
    )


def _books_are_old(control: TradingControl, limits: Limits | None = None) -> list[Reason]:
    """A book that nobody has compared for long can't be trusted. One that is not open yet is
    compared when it is opened, before the first order."""
    account = control.account
    compared = account.books_as_of or account.opened_at
    if compared is None:
        return []
    limit = max(10 * account.cadence, _BOOKS_FLOOR)
    age = control.clock - compared
    if age <= limit:
        return []
    mode = (limits or in_force(account.pk)).reconcile_mode
    if mode == RiskLimits.ReconcileMode.OFF:
        return []
    return [
        Reason(
            code="books_old",
            state=REDUCING,
            message=f"The books were last compared with the broker at {_shown(compared)}: too "
            "long ago to add risk. Look on Health whether the worker runs, or run "
            "`manage.py reconcile`.",
            limit=Decimal(int(limit.total_seconds())),
            actual=Decimal(int(age.total_seconds())),
        )
    ]


# --- levels ----------------------------------------------------------------------------------


def _judge_levels(
    control: TradingControl,
    *,
    equity: Decimal,
    buying_power: Decimal,
    asked_at: datetime,
    limits: Limits,
) -> list[Reason]:
    """The levels that these figures hold. They are kept where they have changed, unless the
    figures are older than those that they rest on."""
    _begin_session(control, equity, asked_at)
    found = breaker.levels(
        equity=_sensible(equity),
        session_equity=control.session_equity,
        buying_power=_sensible(buying_power),
        limits=limits,
    )
    before, after = _codes(control.levels), [reason.code for reason in found]
    if before == after or (control.levels_as_of is not None and asked_at < control.levels_as_of):
        return found
    shown = _breaker_shown(control)
    control.levels, control.levels_as_of = _storable(found), asked_at
    for reason in found:
        if reason.code not in before:
            _note(control, Kind.TRIPPED, shown, _OPEN, reason.message, figures=_figures([reason]))
            raise_alert(
                control.account_id,
                code="breaker_open",
                subject=reason.code,
                # Money that is all at work may be as it should; a loss that large is not.
                severity=Alert.Severity.CRITICAL
                if reason.code == breaker.EQUITY_DROP
                else Alert.Severity.WARNING,
                message=f"{reason.message} Until then only cancels and orders that reduce "
                "positions pass.",
            )
    for code in set(before) - set(after):
        why = f"{code.replace('_', ' ').capitalize()}: the level is left."
        _note(control, Kind.CLOSED, shown, _breaker_shown(control), why)
        end_alert(control.account_id, code="breaker_open", subject=code)
    return found


def _begin_session(control: TradingControl, equity: Decimal, asked_at: datetime) -> None:
    """The first figures of an exchange's day are what its losses are measured from."""
    day = exchange_day(asked_at)
    begins = control.session_day is None or control.session_day < day
    if begins and _sensible(equity).is_finite():
        control.session_day, control.session_equity = day, equity


def _sensible(figure: Decimal) -> Decimal:
    return figure if figure.is_finite() and abs(figure) < _ABSURD else Decimal("NaN")


# --- the breaker by outcomes -----------------------------------------------------------------


def _concerned(control: TradingControl, outcomes: list[Outcome], limits: Limits) -> bool:
    return bool(_of_probe(control, outcomes) or _tripped(control, outcomes, limits))


def _of_probe(control: TradingControl, outcomes: list[Outcome]) -> Outcome | None:
    mine = [o for o in outcomes if control.probe is not None and o.order_id == control.probe]
    return max(mine, key=lambda outcome: outcome.at, default=None)


def _tripped(control: TradingControl, outcomes: list[Outcome], limits: Limits) -> list[Reason]:
    """What opens a closed breaker. What was dealt with before counts no more."""
    if control.breaker != _CLOSED or _overridden(control):
        return []
    since = control.counted_from
    counted = [outcome for outcome in outcomes if since is None or outcome.at > since]
    return breaker.trips(counted, limits, control.clock)


def _trip(control: TradingControl, reasons: list[Reason], limits: Limits, why: str) -> None:
    before, control.breaker = control.breaker, _OPEN
    control.trips = min(control.trips + 1, _MOST_TRIPS)
    control.breaker_reasons = _storable(reasons)
    control.opened_at = control.clock
    control.retry_at = control.clock + breaker.cooldown(control.trips, limits)
    control.probe = None
    said = " ".join(reason.message for reason in reasons)
    _note(control, Kind.TRIPPED, before, _OPEN, f"{why} {said}", figures=_figures(reasons))
    if control.trips == 2:  # from here on it is critical: a new alert, told anew
        end_alert(control.account_id, code="breaker_open", subject=_BY_ORDERS)
    _alert(control, f"{why} One order may try at {_shown(control.retry_at)}. {said}")


def _fail_again(control: TradingControl, tried: Outcome, limits: Limits) -> None:
    """The order that tried failed: open again, for longer."""
    why = f"The order that tried failed: {_ended(tried.message)}"
    earlier = [r for r in _stored(control.breaker_reasons) if r.code != _PROBE_FAILED]
    reasons = [Reason(code=_PROBE_FAILED, state=REDUCING, message=why), *earlier]
    _trip(control, reasons, limits, "The breaker opened again.")


def _succeed(control: TradingControl) -> None:
    why = f"The broker took order {control.probe}, the one that tried."
    _close(control)
    _note(control, Kind.CLOSED, _HALF_OPEN, _CLOSED, why)


def _close(control: TradingControl) -> None:
    control.breaker, control.breaker_reasons = _CLOSED, []
    control.opened_at = control.retry_at = control.probe = None
    control.trips, control.counted_from = 0, control.clock
    end_alert(control.account_id, code="breaker_open", subject=_BY_ORDERS)


def _end_override(control: TradingControl, why: str, *, actor: str) -> None:
    control.override_until = None
    control.override_reason = control.override_actor = ""
    _note(control, Kind.OVERRIDE, "overridden", _breaker_shown(control), why, actor=actor)
    end_alert(control.account_id, code="breaker_overridden", subject=control.account.name)


# --- what is kept and told -------------------------------------------------------------------


def _breaker_shown(control: TradingControl) -> str:
    return _OPEN if control.levels else control.breaker


def _note(
    control: TradingControl,
    kind: TradingChange.Kind,
    before: str,
    after: str,
    reason: str,
    *,
    actor: str = _BREAKER,
    figures: dict[str, Any] | None = None,
) -> None:
    TradingChange.objects.create(
        account_id=control.account_id,
        kind=kind,
        from_state=before,
        to_state=after,
        reason=reason,
        actor=actor,
        figures=figures or {},
        at=control.clock,
    )


def _alert(control: TradingControl, message: str) -> None:
    again = control.trips > 1
    raise_alert(
        control.account_id,
        code="breaker_open",
        subject=_BY_ORDERS,
        severity=Alert.Severity.CRITICAL if again else Alert.Severity.WARNING,
        message=f"{message} Until it closes only cancels and orders that reduce positions pass. "
        + (f"It opened {control.trips} times in a row: a person should look." if again else ""),
    )


def _tell_of_halt(control: TradingControl) -> None:
    account = control.account
    if control.state != HALTED:
        end_alert(account.pk, code="trading_halted", subject=account.name)
        return
    raise_alert(
        account.pk,
        code="trading_halted",
        subject=account.name,
        severity=Alert.Severity.CRITICAL,
        message=f"{control.actor} halted trading: {_ended(control.reason)} Only cancels pass until "
        "a person resumes it in the console.",
    )


def _tell_of_books(account: BrokerAccount, old: list[Reason]) -> None:
    for reason in old:
        raise_alert(
            account.pk,
            code="books_old",
            subject=account.name,
            severity=Alert.Severity.CRITICAL,
            message=f"{reason.message} Until then only orders that reduce positions pass.",
        )
    if not old:
        end_alert(account.pk, code="books_old", subject=account.name)


def _check_said(reason: str, actor: str) -> None:
    if not reason.strip() or not actor.strip():
        raise ValueError("Say why, and who you are: it stays in the history.")


def _ended(words: str) -> str:
    """What others have written, as a sentence that more may follow."""
    words = words.strip()
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(NEW_YORK):%Y-%m-%d %H:%M:%S} ET"


def _figures(reasons: list[Reason]) -> dict[str, Any]:
    return {"reasons": _storable(reasons)}


def _storable(reasons: list[Reason]) -> list[dict[str, str | None]]:
    return [
        {
            "code": reason.code,
            "message": reason.message,
            "limit": None if reason.limit is None else plain(reason.limit),
            "actual": None if reason.actual is None else plain(reason.actual),
        }
        for reason in reasons
    ]


def _stored(rows: list[dict[str, str | None]]) -> list[Reason]:
    return [
        Reason(
            code=row["code"] or "",
            state=REDUCING,
            message=row["message"] or "",
            limit=None if row["limit"] is None else Decimal(row["limit"]),
            actual=None if row["actual"] is None else Decimal(row["actual"]),
        )
        for row in rows
    ]


def _codes(rows: list[dict[str, str | None]]) -> list[str]:
    return [row["code"] or "" for row in rows]
