"""JSON in the shapes of Alpaca's wire: decimals are strings, moments have nine digits.

Only shapes: nothing is decided or changed here. Keys and nulls follow captures of the real
paper venue.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ordinis.simulator import moments
from ordinis.simulator.market import NEW_YORK, Market, next_trading_day, trading_days
from ordinis.simulator.order import Order
from ordinis.simulator.portfolio import Portfolio, Position, maintenance_rate
from ordinis.simulator.prices import Quote
from ordinis.simulator.refusals import plain
from ordinis.simulator.symbols import Asset

Json = dict[str, Any]
_CENT = Decimal("0.01")
_FACTOR = Decimal("0.00001")


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _cents(value: Decimal) -> str:
    return plain(value.quantize(_CENT))


def order(it: Order, legs: Iterable[Order] = ()) -> Json:
    """An order as REST tells it."""
    moment = moments.optional_text
    children = [order(leg) for leg in legs]
    return {
        "id": it.id,
        "client_order_id": it.client_order_id,
        "created_at": moments.text(it.created_at),
        "updated_at": moments.text(it.updated_at),
        "submitted_at": moments.text(it.submitted_at),
        "filled_at": moment(it.filled_at),
        "expired_at": moment(it.expired_at),
        "canceled_at": moment(it.canceled_at),
        "failed_at": moment(it.failed_at),
        "replaced_at": moment(it.replaced_at),
        "replaced_by": it.replaced_by,
        "replaces": it.replaces,
        "asset_id": it.asset_id,
        "symbol": it.symbol,
        "asset_class": "us_equity",
        "notional": _optional(it.notional),
        "qty": _optional(it.qty),
        "filled_qty": plain(it.filled_qty),
        "filled_avg_price": _optional(it.filled_avg_price),
        "order_class": it.order_class,
        "order_type": it.type,
        "type": it.type,
        "side": it.side,
        "position_intent": it.position_intent,
        "time_in_force": it.time_in_force,
        "limit_price": _optional(it.limit_price),
        "stop_price": _optional(it.stop_price),
        "status": it.status,
        "extended_hours": it.extended_hours,
        "legs": children or None,
        "trail_percent": _optional(it.trail_percent),
        "trail_price": _optional(it.trail_price),
        "hwm": _optional(it.hwm),
        "subtag": None,
        "source": None,
        "expires_at": moment(it.expires_at),
    }


def streamed_order(it: Order, legs: Iterable[Order] = ()) -> Json:
    """An order as the stream tells it: one key more than REST, two fewer."""
    body = order(it, legs)
    del body["subtag"], body["source"]
    body["cancel_requested_at"] = moments.optional_text(it.cancel_requested_at)
    return body


def position(it: Position, asset: Asset, quote: Quote, available: Decimal) -> Json:
    price, lastday = quote.last, asset.start_price
    value, cost = it.qty * price, it.qty * it.average_price
    profit, intraday = value - cost, it.qty * (price - lastday)
    return {
        "asset_id": asset.id,
        "symbol": it.symbol,
        "exchange": asset.exchange,
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": plain(it.qty),
        "qty_available": plain(available),
        "avg_entry_price": plain(it.average_price),
        "side": "long" if it.qty > 0 else "short",
        "market_value": _cents(value),
        "cost_basis": _cents(cost),
        "unrealized_pl": _cents(profit),
        "unrealized_plpc": plain((profit / abs(cost)).quantize(_FACTOR)) if cost else "0",
        "unrealized_intraday_pl": _cents(intraday),
        "unrealized_intraday_plpc": plain((intraday / abs(it.qty * lastday)).quantize(_FACTOR)),
        "current_price": plain(price),
        "lastday_price": plain(lastday),
        "change_today": plain((price / lastday - 1).quantize(_FACTOR)),
    }


def account(it: Portfolio, *, margin: str, opened_at: int, today: date, settings: Json) -> Json:
    """The account, with every key that the paper venue sent in 2026-07 and no other."""
    buying_power = plain(it.buying_power(margin))
    after_initial = max(it.equity - it.initial_margin, Decimal(0))
    equity = _cents(it.equity)
    return {
        "id": "5d5b2b4e-6f0a-4a55-9c2b-51a1d0000001",
        "admin_configurations": {},
        "user_configurations": None,
        "account_number": "PA3SIMULATED",
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "options_approved_level": 0,
        "options_trading_level": 0,
        "currency": "USD",
        "buying_power": buying_power,
        "regt_buying_power": _cents(2 * after_initial),
        "effective_buying_power": buying_power,
        "non_marginable_buying_power": _cents(max(it.cash - it.reserved, Decimal(0))),
        "options_buying_power": _cents(after_initial),
        "cash": _cents(it.cash),
        "accrued_fees": "0",
        "portfolio_value": equity,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "created_at": moments.text(opened_at),
        "trade_suspended_by_user": settings["suspend_trade"],
        "multiplier": "4",
        "shorting_enabled": not settings["no_shorting"],
        "equity": equity,
        "last_equity": _cents(it.last_equity),
        "long_market_value": _cents(it.long_value),
        "short_market_value": _cents(it.short_value),
        "position_market_value": _cents(it.long_value - it.short_value),
        "initial_margin": _cents(it.initial_margin),
        "maintenance_margin": _cents(it.maintenance_margin),
        "last_maintenance_margin": "0",
        "sma": _cents(max(it.equity - it.initial_margin, Decimal(0))),
        "balance_asof": (today - timedelta(days=1)).isoformat(),
        "crypto_tier": 0,
        "intraday_adjustments": "0",
        "pending_reg_taf_fees": "0",
    }


def asset(it: Asset) -> Json:
    long = maintenance_rate(it, it.start_price, short=False)
    short = maintenance_rate(it, it.start_price, short=True)
    return {
        "id": it.id,
        "class": "us_equity",
        "exchange": it.exchange,
        "symbol": it.symbol,
        "name": it.name,
        "status": "active" if it.tradable else "inactive",
        "tradable": it.tradable,
        "marginable": True,
        "maintenance_margin_requirement": int(long * 100),
        "margin_requirement_long": plain((long * 100).quantize(_CENT)),
        "margin_requirement_short": plain((short * 100).quantize(_CENT)),
        "shortable": it.shortable,
        "easy_to_borrow": it.shortable,
        "borrow_status": "easy_to_borrow" if it.shortable else "hard_to_borrow",
        "fractionable": it.fractionable,
        "attributes": ["fractional_eh_enabled"] if it.fractionable else [],
    }


def fill_activity(
    it: Order, *, moment: int, execution_id: str, qty: Decimal, price: Decimal
) -> Json:
    return {
        "id": f"{moments.compact_text(moment)}::{execution_id}",
        "activity_type": "FILL",
        "transaction_time": moments.text(moment),
        "type": "fill" if it.status == "filled" else "partial_fill",
        "price": plain(price),
        "qty": plain(qty),
        "side": it.side,
        "symbol": it.symbol,
        "leaves_qty": plain(it.remaining),
        "order_id": it.id,
        "cum_qty": plain(it.filled_qty),
        "order_status": it.status,
    }


def clock(market: Market, moment: int) -> Json:
    """New York's own time, as Alpaca's clock tells it."""
    local = datetime.fromtimestamp(moment // moments.SECOND, NEW_YORK).isoformat()
    return {
        "timestamp": f"{local[:19]}.{moment % moments.SECOND:09d}{local[19:]}",
        "is_open": market.session(moment) == "open",
        "next_open": market.next_open(moment).isoformat(),
        "next_close": market.next_close(moment).isoformat(),
    }


def calendar(start: date, end: date) -> list[Json]:
    return [
        {
            "date": day.isoformat(),
            "open": "09:30",
            "close": "16:00",
            "session_open": "0400",
            "session_close": "2000",
            "settlement_date": next_trading_day(day).isoformat(),
        }
        for day in trading_days(start, end)
    ]


def latest_quote(it: Quote, moment: int) -> Json:
    """A quote as Alpaca's data host sends it: numbers, not strings."""
    return {
        "t": moments.text(moment),
        "ax": "V",
        "ap": float(it.ask),
        "as": 4,
        "bx": "V",
        "bp": float(it.bid),
        "bs": 4,
        "c": ["R"],
        "z": "C",
    }


def latest_trade(it: Quote, moment: int) -> Json:
    return {
        "t": moments.text(moment),
        "x": "V",
        "p": float(it.last),
        "s": 100,
        "c": ["@"],
        "i": moment % 10**12,
        "z": "C",
    }
