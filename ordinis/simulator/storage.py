"""What survives a kill and a restart: one SQLite file, written before anybody is told.

One transaction per change. SQLite is told not to wait for the disk: what was committed survives
the process, which is what a rehearsal kills, though not the machine.
"""

import json
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

from ordinis.simulator.order import Order
from ordinis.simulator.symbols import Asset
from ordinis.simulator.venue import Changes, Venue

_VERSION = 1  # of the rows' form
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS orders (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions
    (symbol TEXT PRIMARY KEY, qty TEXT NOT NULL, average_price TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS activities (number INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class UnusableState(Exception):
    """The state file can't be used: another program's, another version's, or in use."""


class Storage:
    """The state of a venue in a file, which one process at a time may use."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            self._database.executescript(_SCHEMA)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version not in {0, _VERSION}:
                raise UnusableState(f"{path} was written by another version of the simulator")
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as problem:
            raise UnusableState(f"{path}: {problem}") from None

    def close(self) -> None:
        self._database.close()

    def save(self, venue: Venue, changes: Changes) -> None:
        execute = self._database.execute
        execute("BEGIN")
        for order in changes.orders.values():
            execute("REPLACE INTO orders VALUES (?, ?)", (order.sequence, order.to_row()))
        for symbol in changes.positions:
            held = venue.portfolio.get(symbol)
            if held is None:
                execute("DELETE FROM positions WHERE symbol = ?", (symbol,))
            else:
                row = (symbol, str(held.qty), str(held.average_price))
                execute("REPLACE INTO positions VALUES (?, ?, ?)", row)
        for activity in changes.activities:
            execute("INSERT INTO activities (body) VALUES (?)", (json.dumps(activity),))
        if changes.account:
            self._put("account", _account(venue))
        if changes.prices:
            self._put("prices", venue.prices.dump())
        if changes.settings:
            self._put("settings", _settings(venue))
        execute("COMMIT")

    def clear(self) -> None:
        """Forget everything, spent client ids too."""
        self._database.execute("BEGIN")
        for table in ("orders", "positions", "activities", "state"):
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - names above, no input
        self._database.execute("COMMIT")

    def load(self, venue: Venue) -> bool:
        """Fill an empty venue with what is stored; False where nothing is."""
        state = {
            name: json.loads(body)
            for name, body in self._database.execute("SELECT name, body FROM state")
        }
        if "account" not in state:
            return False
        _load_settings(venue, state["settings"])
        venue.prices.load(state["prices"])
        _load_account(venue, state["account"])
        rows = self._database.execute("SELECT symbol, qty, average_price FROM positions")
        for symbol, qty, average_price in rows:
            venue.portfolio.set(symbol, Decimal(qty), Decimal(average_price))
        venue.revalue()
        for (body,) in self._database.execute("SELECT body FROM orders ORDER BY sequence"):
            order = Order.from_row(body)
            venue.book.add(order)
            venue.portfolio.reserved += order.reserved
        for (body,) in self._database.execute("SELECT body FROM activities ORDER BY number"):
            venue.activities.append(json.loads(body))
        return True

    def _put(self, name: str, value: dict[str, Any]) -> None:
        self._database.execute("REPLACE INTO state VALUES (?, ?)", (name, json.dumps(value)))


def _account(venue: Venue) -> dict[str, Any]:
    pinned = venue.portfolio.pinned_buying_power
    return {
        "cash": str(venue.portfolio.cash),
        "last_equity": str(venue.portfolio.last_equity),
        "pinned_buying_power": None if pinned is None else str(pinned),
        "last_event_id": venue.last_event_id,
        "opened_at": venue.opened_at,
    }


def _load_account(venue: Venue, stored: dict[str, Any]) -> None:
    pinned = stored["pinned_buying_power"]
    venue.portfolio.cash = Decimal(stored["cash"])
    venue.portfolio.last_equity = Decimal(stored["last_equity"])
    venue.portfolio.pinned_buying_power = None if pinned is None else Decimal(pinned)
    venue.last_event_id = stored["last_event_id"]
    venue.opened_at = stored["opened_at"]


def _settings(venue: Venue) -> dict[str, Any]:
    return {
        "market": venue.market.mode,
        "options": venue.options.dump(),
        "configuration": venue.configuration,
        "assets": [asset.to_row() for asset in venue.listing if asset.listed_by_hand],
    }


def _load_settings(venue: Venue, stored: dict[str, Any]) -> None:
    venue.market.mode = stored["market"]
    venue.options.change(stored["options"])
    venue.configuration.update(stored["configuration"])
    for row in stored["assets"]:
        venue.add_asset(Asset.from_row(row))
