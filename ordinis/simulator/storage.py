"""What survives a kill and a restart: one SQLite file, written before anybody is told.

One transaction per change. SQLite is told not to wait for the disk: what was committed survives
the process, which is what a rehearsal kills, though not the machine.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ordinis.simulator import snapshot
from ordinis.simulator.changes import Changes
from ordinis.simulator.history import LIMIT, Told
from ordinis.simulator.snapshot import UnusableState
from ordinis.simulator.venue import Venue
from ordinis.simulator.wire import Json

_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS orders (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions
    (symbol TEXT PRIMARY KEY, qty TEXT NOT NULL, average_price TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS activities (number INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events
    (number INTEGER PRIMARY KEY, channel TEXT NOT NULL, id TEXT NOT NULL,
     moment INTEGER NOT NULL, order_id TEXT NOT NULL, body BLOB NOT NULL);
"""
_TABLES = ("orders", "positions", "activities", "state", "events")


class Storage:
    """The state of a venue in a file, which one process at a time may use."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
        try:
            self._database.executescript(_SCHEMA)
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version > snapshot.VERSION:
                raise UnusableState(f"{path} was written by a later version of the simulator")
            self._database.execute(f"PRAGMA user_version = {snapshot.VERSION}")
        except sqlite3.Error as problem:
            raise UnusableState(f"{path}: {problem}") from None

    def close(self) -> None:
        self._database.close()

    def save(self, venue: Venue, changes: Changes, events: list[Told], host: Json) -> None:
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
        for it in events:
            execute(
                "INSERT INTO events (channel, id, moment, order_id, body) VALUES (?, ?, ?, ?, ?)",
                (it.channel, it.id, it.moment, it.order_id, it.body),
            )
        if changes.account:
            self._put("account", snapshot.account(venue))
        if changes.prices:
            self._put("prices", venue.prices.dump())
        if changes.settings:
            self._put("settings", snapshot.settings(venue, host))
        execute("COMMIT")

    def clear(self) -> None:
        """Forget everything, spent client ids too."""
        self._database.execute("BEGIN")
        for table in _TABLES:
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - names above, no input
        self._database.execute("COMMIT")

    def load(self) -> Json | None:
        """What is stored, without the events; None where nothing is."""
        query = self._database.execute
        state = {name: json.loads(body) for name, body in query("SELECT name, body FROM state")}
        if "account" not in state:
            return None
        return {
            **state,
            "positions": query("SELECT symbol, qty, average_price FROM positions").fetchall(),
            "orders": self._bodies("SELECT body FROM orders ORDER BY sequence"),
            "activities": self._bodies("SELECT body FROM activities ORDER BY number"),
        }

    def events(self) -> Iterator[Told]:
        """The newest events, as many as are kept in memory, oldest first."""
        rows = self._database.execute(
            "SELECT channel, id, moment, order_id, body FROM "
            "(SELECT * FROM events ORDER BY number DESC LIMIT ?) ORDER BY number",
            (LIMIT,),
        )
        return (Told(*row) for row in rows)

    def _bodies(self, query: str) -> list[dict[str, Any]]:
        return [json.loads(body) for (body,) in self._database.execute(query)]

    def _put(self, name: str, value: dict[str, Any]) -> None:
        self._database.execute("REPLACE INTO state VALUES (?, ?)", (name, json.dumps(value)))
