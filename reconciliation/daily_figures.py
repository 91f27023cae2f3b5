"""All figures of one day of an account, as a daily report keeps them: numbers as text, times with
their zone, words left to where it is shown. Reads only, in as many queries whatever the day was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from ordinis.accounts.models import OPERATOR, BrokerAccount
from ordinis.numbers import plain
from reconciliation import daily_counts as counts
from reconciliation import daily_events as events
from reconciliation.daily_counts import Span
from reconciliation.daily_window import Day, day_at, day_on, trading_days_before
from reconciliation.models import DailyReport
from reconciliation.scorecard import Counts, Measure, scorecard, together
from reconciliation.scorecard_targets import WINDOWS

VERSION: Final = 1
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Measured:
    """One day's figures as they are kept, and the scorecard by window."""

    figures: dict[str, Any]
    cards: dict[str, list[Measure]]


def measured(account: BrokerAccount, day: Day, now: datetime) -> Measured:
    """The day as far as it has gone, by what is stored."""
    end = min(day.ends, now)
    span = Span(account, day.starts, end)
    # Nobody could compare before there was a book.
    opened = max(day.opens, account.opened_at) if account.opened_at else end
    in_hours = Span(account, opened, max(min(day.closes, end), opened))
    # Of an older day the broker's figures are gone: they only say how things stand now.
    is_current = account.as_of is not None and account.as_of >= day.starts and now < _next(day)
    by_status = counts.orders(span)
    sector = counts.largest_sector(account) if is_current else None
    compared = counts.comparisons(span)
    filled = counts.fills(span)
    activities = counts.activities(span)
    corrections, trading = events.corrections(span), events.trading(span)
    rebuilds = events.rebuilds(span)
    readings = counts.readings(in_hours)
    days_before = trading_days_before(day.day, max(WINDOWS.values()) - 1)
    timed = counts.submission(account, list(_starts(day, days_before)), end)
    sums = {
        name: sum(row[name] for row in by_status)
        for name in ("sent", "errors", "acknowledged", "signals", "executed")
    }
    today = Counts(
        **sums,
        refused_for_funds=counts.refused_for_funds(span),
        readings=readings["count"],
        positions_read=readings["positions"],
        largest_sector=None if sector is None else sector[1],
        compared=compared["compared"],
        differed=compared["differed"],
        runs=compared["complete"],
        run_seconds=compared["seconds"],
        decisions=corrections["by_people"],
        halts=trading["halts"],
        hand_orders=sum(row["first"] for row in by_status if row["strategy__name"] == OPERATOR),
        rebuilds=len(rebuilds),
        fills=filled["count"],
        external_fills=sum(
            row["count"] for row in activities if row["activity_type"] == counts.FILL
        ),
        timed=timed[0][0],
        p95_ms=_milliseconds(timed[0][1]),
    )
    windows = _windows(account, today, days_before, timed)
    cards = {name: scorecard(window, window=name) for name, window in windows.items()}
    denied = counts.denials([account.pk], span.start, span.end)
    figures = {
        "version": VERSION,
        "final": now >= day.due,
        "account": account.name,
        "mode": account.mode,
        "day": day.day,
        "starts_at": day.starts,
        "opens_at": day.opens,
        "closes_at": day.closes,
        "until": end,
        "made_at": now,
        "account_figures": {
            name: getattr(account, name) if is_current else None
            for name in ("equity", "cash", "buying_power", "as_of")
        },
        "largest_sector": None if sector is None else sector[0],
        "reconciliation": {
            "runs": compared["runs"],
            "complete": compared["complete"],
            "incomplete": compared["runs"] - compared["complete"],
            "compared": compared["compared"],
            "differed": compared["differed"],
            "mean_seconds": _mean(compared["seconds"], compared["complete"]),
            "p95_seconds": compared["p95"],
            "longest_seconds": compared["longest"],
            "longest_gap_seconds": counts.longest_gap(in_hours),
        },
        "breaks": events.breaks(span),
        "corrections": corrections,
        "orders": _orders(by_status),
        "denials": {code: count for (_, code), count in denied.items()},
        "fills": {**filled, "realized_profit": counts.realized_profit(span)},
        "cash": counts.cash(span),
        "activities": activities,
        "trading": trading,
        "alerts": events.alerts(span),
        "rebuilds": rebuilds,
        "counts": asdict(today),
        "scorecard": {
            name: {
                "days": windows[name].days,
                "of": WINDOWS[name],
                "measures": [_told(measure) for measure in cards[name]],
            }
            for name in WINDOWS
        },
    }
    return Measured(_plain(figures), cards)


def _next(day: Day) -> datetime:
    """When the next trading day opens: until then figures of the broker are this day's."""
    following = day_at(day.ends)
    return following.opens


def _starts(day: Day, before: Sequence[date]) -> Iterator[datetime]:
    """Where each window of the scorecard begins, the day's own first."""
    for length in WINDOWS.values():
        first = day_on(before[-(length - 1)]) if 1 < length <= len(before) + 1 else None
        yield day.starts if first is None else first.starts


def _windows(
    account: BrokerAccount, today: Counts, before: Sequence[date], timed: Sequence[Any]
) -> dict[str, Counts]:
    """The day, and with it the stored reports of the days before."""
    rows = DailyReport.objects.filter(account=account, day__in=before).order_by("-day")
    stored = {day: _counts(kept) for day, kept in rows.values_list("day", "figures__counts")}
    windows = {}
    for (name, length), (count, p95) in zip(WINDOWS.items(), timed, strict=True):
        days = before[len(before) - length + 1 :] if length > 1 else []
        each = [today, *(stored[day] for day in days if day in stored)]
        windows[name] = together(each, timed=count, p95_ms=_milliseconds(p95))
    return windows


def _counts(kept: dict[str, Any]) -> Counts:
    """Stored counts; one that an older version did not count is 0."""
    decimals = ("largest_sector", "run_seconds", "p95_ms")
    known = {field.name for field in fields(Counts)}
    values: dict[str, Any] = {
        name: Decimal(value) if name in decimals and value is not None else value
        for name, value in kept.items()
        if name in known
    }
    return Counts(**values)


def _orders(by_status: Sequence[dict[str, Any]]) -> dict[str, Any]:
    empty = {"received": 0, "sent": 0, **dict.fromkeys(counts.OUTCOMES, 0)}
    total = dict(empty)
    strategies: dict[str, dict[str, int]] = {}
    for row in by_status:
        for sums in (total, strategies.setdefault(row["strategy__name"], dict(empty))):
            sums["received"] += row["orders"]
            sums["sent"] += row["sent"]
            sums[counts.outcome(row["status"])] += row["orders"]
    by_strategy = [{"strategy": name, **sums} for name, sums in sorted(strategies.items())]
    return {"total": total, "by_strategy": by_strategy}


def _told(measure: Measure) -> dict[str, Any]:
    return {
        "key": measure.spec.key,
        "value": measure.value,
        "numerator": measure.numerator,
        "denominator": measure.denominator,
        "met": measure.met,
        "target": measure.spec.target.words(measure.spec.unit),
        "source": measure.spec.source,
    }


def _mean(sum_: Decimal, count: int) -> Decimal | None:
    return (sum_ / count).quantize(Decimal("0.001")) if count else None


def _milliseconds(value: Any) -> Decimal | None:
    return None if value is None else Decimal(value).quantize(_CENT)


def _plain(value: Any) -> Any:
    """As JSON keeps it: decimals and times as text."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, date):  # a datetime is one, too
        return value.isoformat()
    return value
