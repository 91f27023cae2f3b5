"""What the tables of a daily report are made of. How a value is written is its unit's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["text", "count", "number", "dollars", "signed_dollars", "span", "moment"]
Figures = Mapping[str, Any]

FACTS = ("Figure", "Value")


@dataclass(frozen=True, slots=True)
class Cell:
    """A stored value, numbers and times as text, and what it is; None: nothing was measured."""

    value: Any
    unit: Unit = "text"
    # What stands behind a number: %, ms.
    after: str = ""
    # Somebody should look at it.
    stands_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One section. `empty` is said in its place when it has no rows, `note` below it."""

    key: str
    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    empty: str = "None."
    note: str = ""

    @property
    def is_facts(self) -> bool:
        """Whether it is a list of figures, each with its name."""
        return self.header == FACTS


def text(value: Any) -> Cell:
    return Cell("" if value is None else str(value))


def count(value: int) -> Cell:
    return Cell(value, "count")


def pairs(rows: Iterable[tuple[str, Cell]]) -> list[list[Cell]]:
    return [[text(name), cell] for name, cell in rows]


def label(choices: Callable[[str], Any], value: str) -> str:
    """What a stored value is called; one that a later version no longer knows as it is."""
    try:
        return str(choices(value).label)
    except ValueError:
        return value
