"""When the circuit breaker opens (SPEC K6): five triggers over order outcomes and account figures.

Pure: no clock, no query. A figure that is no number counts as a trigger: in doubt it opens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final
from uuid import UUID

from ordinis.numbers import plain
from risk.limit_values import Limits
from risk.states import REDUCING, Reason

ERROR_RATE: Final = "error_rate"
CONSECUTIVE_FAILURES: Final = "consecutive_failures"
REFUSED_FOR_FUNDS: Final = "refused_for_funds"
EQUITY_DROP: Final = "equity_drop"
BUYING_POWER_LOW: Final = "buying_power_low"

# The broker's code for it (40310000) also stands for a lack of shares and for wash trades.
_FUNDS: Final = (
    *("insufficient buying power", "insufficient options buying power"),
    *("insufficient day trading buying power", "insufficient non-marginable buying power"),
    *("not enough buying power", "buying power is not enough", "exceeds buying power"),
    *("insufficient funds", "not enough funds", "insufficient cash", "insufficient balance"),
)
# The number of times that the cool-down is doubled at most: eight times as long.
_DOUBLINGS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one order at the broker. `message` is the refusal's, `funds` whether it was
    for want of money. Our own denials are none."""

    at: datetime
    failed: bool
    order_id: UUID
    funds: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """One trigger's value now beside its threshold; None where there is nothing to measure."""

    code: str
    actual: Decimal | None
    limit: Decimal
    unit: str
    reached: bool


def is_for_funds(message: str) -> bool:
    """Whether a refusal says that there is too little money."""
    words = message.lower()
    return any(phrase in words for phrase in _FUNDS)


def trips(outcomes: Iterable[Outcome], limits: Limits, now: datetime) -> list[Reason]:
    """The triggers that these outcomes reach; of older ones than the window only failures in a
    row and refusals for funds count."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.at)
    return [
        reason
        for reason in (
            _error_rate(ordered, limits, now),
            _in_a_row(ordered, limits),
            _for_funds(ordered),
        )
        if reason is not None
    ]


def levels(
    *, equity: Decimal, session_equity: Decimal | None, buying_power: Decimal, limits: Limits
) -> list[Reason]:
    """The triggers that the account's figures hold: each lasts as long as its level.
    `session_equity` is the equity with which the exchange's day began."""
    found = (
        _equity_drop(equity, session_equity, limits.breaker_equity_drop_pct),
        _buying_power_low(buying_power, limits.breaker_min_buying_power),
    )
    return [reason for reason in found if reason is not None]


def cooldown(trip: int, limits: Limits) -> timedelta:
    """How long the breaker stays open at its so-manyth trip in a row (from 1)."""
    return timedelta(
        seconds=limits.breaker_cooldown_seconds * 2 ** min(max(trip, 1) - 1, _DOUBLINGS)
    )


def distances(
    outcomes: Iterable[Outcome],
    *,
    equity: Decimal | None,
    session_equity: Decimal | None,
    buying_power: Decimal | None,
    limits: Limits,
    now: datetime,
) -> list[Distance]:
    """All five triggers, for display: value now and threshold."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.at)
    reached = {reason.code for reason in trips(ordered, limits, now)}
    if equity is not None and buying_power is not None:
        reached |= {
            reason.code
            for reason in levels(
                equity=equity,
                session_equity=session_equity,
                buying_power=buying_power,
                limits=limits,
            )
        }
    drop = None if equity is None else _drop(equity, session_equity)
    measured: list[tuple[str, Decimal | None, Decimal, str]] = [
        (ERROR_RATE, _rate(_in_window(ordered, limits, now)), limits.breaker_error_rate_pct, "%"),
        (
            CONSECUTIVE_FAILURES,
            Decimal(_row_of_failures(ordered)),
            Decimal(limits.breaker_consecutive_failures),
            "",
        ),
        (REFUSED_FOR_FUNDS, Decimal(sum(_is_refusal(o) for o in ordered)), Decimal(1), ""),
        (EQUITY_DROP, drop, limits.breaker_equity_drop_pct, "%"),
        (BUYING_POWER_LOW, buying_power, limits.breaker_min_buying_power, "$"),
    ]
    return [
        Distance(code=code, actual=actual, limit=limit, unit=unit, reached=code in reached)
        for code, actual, limit, unit in measured
    ]


def _reason(code: str, message: str, limit: Decimal, actual: Decimal | None) -> Reason:
    return Reason(code=code, state=REDUCING, message=message, limit=limit, actual=actual)


# --- by outcomes ---------------------------------------------------------------------------


def _in_window(ordered: Sequence[Outcome], limits: Limits, now: datetime) -> tuple[int, int]:
    """Failed ones and all of the window."""
    since = now - timedelta(seconds=limits.breaker_window_seconds)
    counted = [outcome for outcome in ordered if outcome.at > since]
    return sum(outcome.failed for outcome in counted), len(counted)


def _rate(counts: tuple[int, int]) -> Decimal | None:
    failed, decided = counts
    if not decided:
        return None
    # Rounded up, so that what is above a limit is never shown as equal to it.
    return (Decimal(100 * failed) / decided).quantize(Decimal("0.01"), ROUND_CEILING)


def _error_rate(ordered: Sequence[Outcome], limits: Limits, now: datetime) -> Reason | None:
    failed, decided = _in_window(ordered, limits, now)
    limit = limits.breaker_error_rate_pct
    if decided < limits.breaker_min_orders or not decided:
        return None
    if limit.is_finite() and 100 * failed <= limit * decided:
        return None
    share = _rate((failed, decided))
    return _reason(
        ERROR_RATE,
        f"{failed} of {decided} orders failed at the broker within "
        f"{limits.breaker_window_seconds} s: more than {limit:f} %. Look at their rejections.",
        limit,
        share,
    )


def _row_of_failures(ordered: Sequence[Outcome]) -> int:
    row = 0
    for outcome in reversed(ordered):
        if not outcome.failed:
            break
        row += 1
    return row


def _in_a_row(ordered: Sequence[Outcome], limits: Limits) -> Reason | None:
    row, limit = _row_of_failures(ordered), limits.breaker_consecutive_failures
    if not row or row < limit:
        return None
    return _reason(
        CONSECUTIVE_FAILURES,
        f"The last {row} orders all failed at the broker (limit {limit}). "
        "Look at their rejections.",
        Decimal(limit),
        Decimal(row),
    )


def _is_refusal(outcome: Outcome) -> bool:
    return outcome.failed and outcome.funds


def _for_funds(ordered: Sequence[Outcome]) -> Reason | None:
    refused = [outcome for outcome in ordered if _is_refusal(outcome)]
    if not refused:
        return None
    return _reason(
        REFUSED_FOR_FUNDS,
        f"The broker refused an order for want of funds: “{refused[-1].message}”. Our figures "
        "said that there was enough: compare buying power with the broker's.",
        Decimal(1),
        Decimal(len(refused)),
    )


# --- by levels -----------------------------------------------------------------------------


def _drop(equity: Decimal, session_equity: Decimal | None) -> Decimal | None:
    """Loss since the session began, in per cent; None where there is nothing to compare."""
    if session_equity is None or not (equity.is_finite() and session_equity.is_finite()):
        return None
    if session_equity <= 0:
        return Decimal(100) if equity < session_equity else Decimal(0)
    loss = 100 * (session_equity - equity) / session_equity
    # Rounded down, so that what is under a limit is never shown as equal to it.
    return loss.quantize(Decimal("0.01"), ROUND_FLOOR)


def _equity_drop(equity: Decimal, session_equity: Decimal | None, limit: Decimal) -> Reason | None:
    measured = [equity, limit, *([] if session_equity is None else [session_equity])]
    if not all(figure.is_finite() for figure in measured):
        return _reason(
            EQUITY_DROP,
            "The account's equity is no number, so that its loss can't be judged. Compare the "
            "account with the broker's own app.",
            limit,
            None,
        )
    if session_equity is None or equity >= session_equity:
        return None
    # A session that began with nothing and lost money has lost more than any share of it.
    if session_equity > 0 and 100 * (session_equity - equity) < limit * session_equity:
        return None
    drop = _drop(equity, session_equity)
    return _reason(
        EQUITY_DROP,
        f"Equity fell by {drop} % in this session, from ${session_equity:,.2f} to "
        f"${equity:,.2f} (limit {plain(limit)} %).",
        limit,
        drop,
    )


def _buying_power_low(buying_power: Decimal, limit: Decimal) -> Reason | None:
    if not (buying_power.is_finite() and limit.is_finite()):
        return _reason(
            BUYING_POWER_LOW,
            "The account's buying power is no number. Compare the account with the broker's own "
            "app.",
            limit,
            None,
        )
    if buying_power >= limit:
        return None
    return _reason(
        BUYING_POWER_LOW,
        f"Buying power is ${buying_power:,.2f}, under ${limit:,.2f}: close positions, or "
        "add money.",
        limit,
        buying_power,
    )
