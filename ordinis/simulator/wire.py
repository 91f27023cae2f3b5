"""JSON in the shapes of Alpaca's wire: decimals are strings, moments have nine digits.

Only shapes: nothing is decided or changed here. Keys and nulls follow captures of the real
paper venue.
"""

import json
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from typing import Any

from ordinis.simulator import moments
from ordinis.simulator.order import Order
from ordinis.simulator.portfolio import Portfolio, Position, maintenance_rate
from ordinis.simulator.refusals import plain
from ordinis.simulator.symbols import Asset

Json = dict[str, Any]
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
_CENT = Decimal("0.01")
_FACTOR = Decimal("0.00001")


ACCOUNT_ID = "5d5b2b4e-6f0a-4a55-9c2b-51a1d0000001"


def encoded(body: object) -> bytes:
    return _encode(body).encode()


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


def position(
    it: Position, asset: Asset, *, price: Decimal, lastday: Decimal, available: Decimal
) -> Json:
    value, cost = it.qty * price, it.qty * it.average_price
    profit, intraday = value - cost, it.qty * (price - lastday)
    return {
        "asset_id": asset.id,
        "symbol": it.symbol,
        "exchange": asset.exchange,
        "asset_class": "us_equity",
        "asset_marginable": asset.marginable,
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


def account(it: Portfolio, *, margin: str, opened_at: int, asof: date, settings: Json) -> Json:
    """The account, with every key that the paper venue sent in 2026-07 and no other."""
    most = int(settings["max_margin_multiplier"])
    buying_power = plain(it.buying_power(margin, most))
    after_initial = max(it.equity - it.initial_margin, Decimal(0))
    equity = _cents(it.equity)
    return {
        "id": ACCOUNT_ID,
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
        "non_marginable_buying_power": _cents(it.cash_buying_power()),
        "options_buying_power": _cents(after_initial),
        "cash": _cents(it.cash),
        "accrued_fees": "0",
        "portfolio_value": equity,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "created_at": moments.text(opened_at),
        "trade_suspended_by_user": settings["suspend_trade"],
        "multiplier": str(it.multiplier(most)),
        "shorting_enabled": it.may_short and not settings["no_shorting"],
        "equity": equity,
        "last_equity": _cents(it.last_equity),
        "long_market_value": _cents(it.long_value),
        "short_market_value": _cents(it.short_value),
        "position_market_value": _cents(it.long_value - it.short_value),
        "initial_margin": _cents(it.initial_margin),
        "maintenance_margin": _cents(it.maintenance_margin),
        "last_maintenance_margin": _cents(it.last_maintenance_margin),
        "sma": _cents(max(it.equity - it.initial_margin, Decimal(0))),
        "balance_asof": asof.isoformat(),
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
        "marginable": it.marginable,
        "maintenance_margin_requirement": int(long * 100),
        "margin_requirement_long": plain((long * 100).quantize(_CENT)),
        "margin_requirement_short": plain((short * 100).quantize(_CENT)),
        "shortable": it.shortable,
        "easy_to_borrow": it.shortable,
        "borrow_status": "easy_to_borrow" if it.shortable else "hard_to_borrow",
        "fractionable": it.fractionable,
        "attributes": ["fractional_eh_enabled"] if it.fractionable else [],
    }
