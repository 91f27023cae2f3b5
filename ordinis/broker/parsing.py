"""Alpaca's bodies into reports. Every ValueError names the field; nothing is guessed.

Unknown fields and statuses pass: only what a report can't do without is demanded.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar

from ordinis.broker.port import (
    AccountReport,
    ActivityReport,
    AssetReport,
    BustReport,
    CalendarDay,
    ClockReport,
    ConfigurationReport,
    ExecutionReport,
    Listing,
    OrderReport,
    PositionReport,
    QuoteReport,
    Raw,
)

T = TypeVar("T")
_ABSURD = Decimal(10) ** 11
# What the database keeps: a figure that it would round never equals what was stored of it.
_PLACES = Decimal("0.000000001")


def parse_list(answer: Any, parse: Callable[[Any], T]) -> Listing[T]:
    """What can be read of a list; one unreadable item costs completeness, never a neighbour."""
    if not isinstance(answer, list):
        raise ValueError("a list was expected")
    items, faults = [], []
    for raw in answer:
        try:
            items.append(parse(raw))
        except ValueError as error:
            faults.append(str(error))
    return Listing(items=tuple(items), complete=not faults, reason="; ".join(faults[:5]))


def joined(pages: Iterable[Listing[T]]) -> Listing[T]:
    """Several pages as one list, complete when all of them are."""
    read = tuple(pages)
    reasons = [page.reason for page in read if not page.complete]
    return Listing(
        items=tuple(item for page in read for item in page.items),
        complete=not reasons,
        reason="; ".join(reasons),
        cut_off=bool(reasons) and all(page.complete or page.cut_off for page in read),
    )


def parse_account(raw: Any) -> AccountReport:
    raw = _object(raw)
    return AccountReport(
        account_number=str(raw.get("account_number") or ""),
        status=str(raw.get("status", "")),
        equity=_required(raw, "equity"),
        cash=_required(raw, "cash"),
        buying_power=_required(raw, "buying_power"),
        trading_blocked=_is(raw, "trading_blocked") or _is(raw, "account_blocked"),
        suspended=_is(raw, "trade_suspended_by_user"),
        may_short=_is(raw, "shorting_enabled") or "shorting_enabled" not in raw,
        cash_buying_power=_optional(raw, "non_marginable_buying_power"),
        raw=raw,
    )


def parse_order(raw: Any) -> OrderReport:
    """An order of Alpaca's REST or stream body."""
    raw = _object(raw)
    return OrderReport(
        broker_order_id=_text(raw, "id"),
        client_order_id=_text(raw, "client_order_id"),
        symbol=_text(raw, "symbol"),
        side=_text(raw, "side"),
        qty=_optional(raw, "qty"),
        type=str(raw.get("type") or raw.get("order_type") or ""),
        time_in_force=str(raw.get("time_in_force") or ""),
        limit_price=_optional(raw, "limit_price"),
        stop_price=_optional(raw, "stop_price"),
        status=_text(raw, "status"),
        filled_qty=_optional(raw, "filled_qty") or Decimal(0),
        average_fill_price=_optional(raw, "filled_avg_price"),
        created_at=parse_time(raw.get("created_at")),
        updated_at=parse_time(raw.get("updated_at")),
        replaces=_optional_text(raw, "replaces"),
        replaced_by=_optional_text(raw, "replaced_by"),
        legs=_legs(raw.get("legs")),
        raw=raw,
    )


def parse_trade_update(message: Any) -> OrderReport:
    """A `trade_updates` frame: the order, and the execution where the event is one; `price` and
    `qty` are the execution's own."""
    data = _object(_object(message).get("data"))
    report = parse_order(data.get("order"))
    if data.get("event") in ("trade_bust", "trade_correct"):
        return replace(report, bust=_bust(data, report), raw=data)
    if data.get("event") not in ("fill", "partial_fill"):
        return report
    execution_id = data.get("execution_id")
    qty, price = _optional(data, "qty"), _optional(data, "price")
    if not execution_id or not qty or not price or qty < 0 or price < 0:
        return report  # the cumulative figures still tell the fill
    execution = ExecutionReport(
        execution_id=str(execution_id),
        qty=qty,
        price=price,
        occurred_at=parse_time(data.get("timestamp")) or report.updated_at or datetime.now(UTC),
    )
    return replace(report, execution=execution, raw=data)


def _bust(data: Raw, report: OrderReport) -> BustReport:
    event, previous = str(data["event"]), str(data.get("previous_execution_id") or "")
    return BustReport(
        kind=event,
        execution_id=str(data.get("execution_id") or f"{event} of {previous}"),
        previous_execution_id=previous,
        qty=_optional(data, "qty"),
        price=_optional(data, "price"),
        occurred_at=parse_time(data.get("timestamp")) or report.updated_at or datetime.now(UTC),
    )


def _legs(raw: Any) -> tuple[OrderReport, ...]:
    """A leg that can't be read must not cost its order."""
    return parse_list(raw, parse_order).items if isinstance(raw, list) else ()


def parse_position(raw: Any) -> PositionReport:
    """A position; a short's quantity is made negative whatever sign the broker gave it."""
    raw = _object(raw)
    qty = _required(raw, "qty")
    available = _optional(raw, "qty_available")
    sign = {"short": -1, "long": 1}.get(str(raw.get("side")), 1 if qty >= 0 else -1)
    return PositionReport(
        symbol=_text(raw, "symbol"),
        qty=sign * abs(qty),
        qty_available=sign * abs(qty if available is None else available),
        average_price=_optional(raw, "avg_entry_price"),
        market_value=_optional(raw, "market_value"),
        current_price=_optional(raw, "current_price"),
        raw=raw,
    )


def parse_clock(raw: Any) -> ClockReport:
    raw = _object(raw)
    return ClockReport(
        timestamp=_moment(raw, "timestamp"),
        is_open=_is(raw, "is_open"),
        next_open=_moment(raw, "next_open"),
        next_close=_moment(raw, "next_close"),
        raw=raw,
    )


def parse_calendar_day(raw: Any) -> CalendarDay:
    raw = _object(raw)
    return CalendarDay(
        day=date.fromisoformat(_text(raw, "date")),
        open=_text(raw, "open"),
        close=_text(raw, "close"),
    )


def parse_asset(raw: Any) -> AssetReport:
    raw = _object(raw)
    return AssetReport(
        symbol=_text(raw, "symbol"),
        asset_class=str(raw.get("class") or ""),
        status=_text(raw, "status"),
        tradable=_is(raw, "tradable"),
        fractionable=_is(raw, "fractionable"),
        shortable=_is(raw, "shortable"),
        marginable=_is(raw, "marginable"),
        raw=raw,
    )


def parse_quote(raw: Any) -> QuoteReport:
    """Alpaca's latest quote; its figures are JSON numbers."""
    raw = _object(raw)
    quote = _object(raw.get("quote"))
    return QuoteReport(
        symbol=_text(raw, "symbol"),
        bid=_required(quote, "bp"),
        ask=_required(quote, "ap"),
        occurred_at=parse_time(quote.get("t")),
        raw=raw,
    )


def parse_activity(raw: Any) -> ActivityReport:
    raw = _object(raw)
    moment = raw.get("transaction_time") or raw.get("created_at") or raw.get("date")
    return ActivityReport(
        activity_id=_text(raw, "id"),
        activity_type=_text(raw, "activity_type"),
        occurred_at=parse_time(moment),
        symbol=_optional_text(raw, "symbol"),
        side=_optional_text(raw, "side"),
        qty=_optional(raw, "qty"),
        price=_optional(raw, "price"),
        cum_qty=_optional(raw, "cum_qty"),
        net_amount=_optional(raw, "net_amount"),
        order_id=_optional_text(raw, "order_id"),
        raw=raw,
    )


def parse_configuration(raw: Any) -> ConfigurationReport:
    raw = _object(raw)
    return ConfigurationReport(
        suspend_trade=_is(raw, "suspend_trade"),
        no_shorting=_is(raw, "no_shorting"),
        fractional_trading=_is(raw, "fractional_trading"),
        raw=raw,
    )


def parse_time(value: Any) -> datetime | None:
    """An aware moment, or None: a time that can't be read is no reason to lose a report."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _object(raw: Any) -> Raw:
    if not isinstance(raw, dict):
        raise ValueError(f"an object was expected, not {type(raw).__name__}")
    return raw


def _decimal(value: Any, name: str) -> Decimal:
    if isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{name} is {value!r}") from error
    # No share count, price or balance comes near; what does would break every sum it enters.
    # copy_abs, since abs() would round, and raise for an exponent of millions.
    if not number.is_finite() or number.copy_abs() >= _ABSURD:
        raise ValueError(f"{name} is {value!r}")
    digits = number.as_tuple().exponent
    return number.quantize(_PLACES) if isinstance(digits, int) and digits < -9 else number


def _required(raw: Raw, name: str) -> Decimal:
    if raw.get(name) in (None, ""):
        raise ValueError(f"{name} is missing")
    return _decimal(raw[name], name)


def _optional(raw: Raw, name: str) -> Decimal | None:
    value = raw.get(name)
    return None if value in (None, "") else _decimal(value, name)


def _text(raw: Raw, name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}")
    return value


def _optional_text(raw: Raw, name: str) -> str | None:
    value = raw.get(name)
    return str(value) if value else None


def _is(raw: Raw, name: str) -> bool:
    return raw.get(name) is True


def _moment(raw: Raw, name: str) -> datetime:
    moment = parse_time(raw.get(name))
    if moment is None:
        raise ValueError(f"{name} is {raw.get(name)!r}")
    return moment
