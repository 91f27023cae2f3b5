"""The whole state of a venue as one JSON object, to be had back later or elsewhere.

Holds nothing that can't be written down: what is due next is put on the schedule anew from the
orders. The state file is made of the same parts (see `storage`).
"""

import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from ordinis.simulator.changes import Changes
from ordinis.simulator.history import ACTIVITIES, TRADES, Told
from ordinis.simulator.order import Order
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import Venue
from ordinis.simulator.wire import Json

VERSION = 2  # of the form; what version 1 lacked has a meaning when it is missing


def dump(venue: Venue, host: Json, told: Iterable[Told]) -> Json:
    """`host` is what belongs to the state beside the venue."""
    return {
        "version": VERSION,
        "account": account(venue),
        "settings": settings(venue, host),
        "prices": venue.prices.dump(),
        "positions": [
            [held.symbol, str(held.qty), str(held.average_price)] for held in venue.portfolio
        ],
        "orders": [json.loads(order.to_row()) for order in venue.book],
        "activities": list(venue.activities),
        "events": [[it.channel, it.id, it.moment, it.order_id, json.loads(it.body)] for it in told],
    }


class UnusableState(Exception):
    """A file with a state can't be used: another program's, another version's, or in use."""


def read(path: Path) -> Json:
    """What somebody saved to a file. Raises UnusableState."""
    try:
        stored: Json = json.loads(path.read_text())
        events(stored)
    except (OSError, ValueError, KeyError) as problem:
        raise UnusableState(f"{path}: {problem}") from None
    return stored


def events(stored: Json) -> list[Told]:
    """Raises ValueError for what is no dump."""
    if not isinstance(stored, dict) or stored.get("version") not in {1, VERSION}:
        raise ValueError("that is no snapshot of this simulator")
    rows = sorted(stored["events"], key=lambda row: str(row[1]))
    return [
        Told(channel, event_id, moment, order_id, json.dumps(body).encode())
        for channel, event_id, moment, order_id, body in rows
        if channel in {TRADES, ACTIVITIES}
    ]


def load(venue: Venue, stored: Json) -> Json:
    """Fill an empty venue; returns what stood beside it."""
    _load_settings(venue, stored["settings"])
    venue.prices.load(stored["prices"])
    _load_account(venue, stored["account"])
    for symbol, qty, average_price in stored["positions"]:
        venue.portfolio.set(symbol, Decimal(qty), Decimal(average_price))
    venue.revalue()
    for values in stored["orders"]:
        order = Order.from_values(values)
        venue.book.add(order)
        venue.portfolio.reserved += order.reserved
    for row in stored["activities"]:
        venue.activities.add(row)
    host: Json = stored["settings"].get("host", {})
    return host


def everything(venue: Venue) -> Changes:
    """As if all of it had changed."""
    return Changes(
        orders={order.id: order for order in venue.book},
        positions={held.symbol for held in venue.portfolio},
        activities=list(venue.activities),
        account=True,
        prices=True,
        settings=True,
    )


def account(venue: Venue) -> dict[str, Any]:
    pinned = venue.portfolio.pinned_buying_power
    return {
        "cash": str(venue.portfolio.cash),
        "last_equity": str(venue.portfolio.last_equity),
        "last_maintenance_margin": str(venue.portfolio.last_maintenance_margin),
        "pinned_buying_power": None if pinned is None else str(pinned),
        "last_event_id": venue.last_event_id,
        "opened_at": venue.opened_at,
        "open_until": venue.open_until,
        "identities": venue.draws.identities,
        "rolls": venue.draws.rolls,
    }


def _load_account(venue: Venue, stored: dict[str, Any]) -> None:
    pinned = stored["pinned_buying_power"]
    portfolio, draws = venue.portfolio, venue.draws
    portfolio.cash = Decimal(stored["cash"])
    portfolio.last_equity = Decimal(stored["last_equity"])
    portfolio.last_maintenance_margin = Decimal(stored.get("last_maintenance_margin", 0))
    portfolio.pinned_buying_power = None if pinned is None else Decimal(pinned)
    venue.last_event_id = stored["last_event_id"]
    venue.opened_at = stored["opened_at"]
    venue.open_until = stored.get("open_until")
    draws.identities, draws.rolls = stored.get("identities", 0), stored.get("rolls", 0)


def settings(venue: Venue, host: Json) -> dict[str, Any]:
    return {
        "market": venue.market.mode,
        "options": venue.options.dump(),
        "configuration": venue.configuration,
        "assets": [asset.to_row() for asset in venue.listing if asset.listed_by_hand],
        "host": host,
    }


def _load_settings(venue: Venue, stored: dict[str, Any]) -> None:
    venue.market.mode = stored["market"]
    venue.options.change(stored["options"])
    venue.configuration.update(stored["configuration"])
    venue.market.overnight = not venue.configuration["disable_overnight_trading"]
    for row in stored["assets"]:
        venue.add_asset(Asset.from_row(row))
