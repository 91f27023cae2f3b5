"""What moved shares or money: fills and everything else, in the order it was booked.

Rows are as the wire tells them and never change once booked: a bust is an event, not an edit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ordinis.simulator import moments, refusals

Row = dict[str, Any]

FILL = "FILL"
_CASH = ("CSD", "CSW")
_DIVIDENDS = (
    *("DIV", "DIVCGL", "DIVCGS", "DIVFEE", "DIVFT", "DIVNRA", "DIVROC", "DIVTW", "DIVTXEX"),
)
_OTHERS = (
    *("ACATC", "ACATS", "CFEE", "CGD", "FEE", "INT", "INTNRA", "INTTW", "JNL", "JNLC", "JNLS"),
    *("MA", "NC", "OPASN", "OPCA", "OPCSH", "OPEXC", "OPEXP", "OPTRD", "PTC", "PTR", "REORG"),
    *("SPIN", "SPLIT", "FOPT"),
)
NON_TRADE = frozenset((*_CASH, *_DIVIDENDS, *_OTHERS))
# Two names that stand for several types.
_GROUPS = {"TRANS": frozenset(_CASH), "MISC": frozenset(_OTHERS)}


@dataclass(frozen=True, slots=True)
class ActivityQuery:
    """The filters of the list request; moments are exclusive, `kinds` None is every type."""

    kinds: frozenset[str] | None = None
    after: int | None = None
    until: int | None = None
    day: str | None = None
    ascending: bool = False
    size: int = 100
    page_token: str | None = None


def kinds_of(names: str) -> frozenset[str]:
    """The types behind a comma-separated list. Raises Refusal for one that does not exist."""
    found: set[str] = set()
    for name in (part.strip() for part in names.split(",")):
        if name != FILL and name not in NON_TRADE and name not in _GROUPS:
            raise refusals.invalid(f"invalid activity type: {name}")
        found |= _GROUPS.get(name, {name})
    return frozenset(found)


def moment_of(row: Row) -> int:
    """When it was booked."""
    return moments.parse(row.get("transaction_time") or row["created_at"])


class ActivityLog:
    """All activities of the account, oldest first."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._moments: list[int] = []
        self._places: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def add(self, row: Row, moment: int | None = None) -> None:
        self._places[row["id"]] = len(self._rows)
        self._places[row["id"].partition("::")[2]] = len(self._rows)
        self._rows.append(row)
        self._moments.append(moment_of(row) if moment is None else moment)

    def execution(self, execution_id: str) -> Row | None:
        """The fill with this execution id."""
        place = self._places.get(execution_id)
        row = None if place is None else self._rows[place]
        return row if row is not None and row["activity_type"] == FILL else None

    def page(self, query: ActivityQuery) -> list[Row]:
        """Raises Refusal for a token that is no activity's id."""
        places = range(len(self._rows))
        if query.page_token:
            last = self._places.get(query.page_token)
            if last is None:
                raise refusals.invalid(f"invalid page_token: {query.page_token}")
            places = places[last + 1 :] if query.ascending else places[:last]
        found: list[Row] = []
        for place in places if query.ascending else reversed(places):
            if self._takes(query, place):
                found.append(self._rows[place])
                if len(found) == query.size:
                    break
        return found

    def _takes(self, query: ActivityQuery, place: int) -> bool:
        moment = self._moments[place]
        if query.kinds is not None and self._rows[place]["activity_type"] not in query.kinds:
            return False
        if query.after is not None and moment <= query.after:
            return False
        if query.until is not None and moment >= query.until:
            return False
        return query.day is None or moments.text(moment).startswith(query.day)
