"""Reads a CSV of symbols and sectors: bytes in, rows and errors by line out.

Pure: it never asks the database and stores nothing. A row is only kept when all of its line is
right; what a line gets wrong is said with what to do about it.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

from django.db import models

from positions.models import UNKNOWN_SECTOR, Instrument

MAX_BYTES: Final = 2 * 1024 * 1024
MAX_LINES: Final = 50_000
COLUMNS: Final = ("symbol", "sector", "name", "sub_industry")
_REQUIRED: Final = ("symbol", "sector")
_LONGEST: Final = {
    column: cast("models.CharField[str, str]", Instrument._meta.get_field(column)).max_length or 0
    for column in COLUMNS
}
_SYMBOL: Final = re.compile(r"[A-Z0-9]+(\.[A-Z0-9]+)*")
# What a spreadsheet takes for the beginning of a formula, in either width.
_FORMULA: Final = tuple("=+-@＝＋－＠")
_SAVE_AS: Final = "In the spreadsheet program, save it as “CSV UTF-8 (comma delimited)”."


@dataclass(frozen=True, slots=True)
class Row:
    """One symbol as the file gives it; None where the file does not say."""

    line: int
    symbol: str
    sector: str
    name: str | None = None
    sub_industry: str | None = None


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line (1 is the header), and what to do."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file says. With any error, nothing of it may be applied."""

    rows: tuple[Row, ...]
    errors: tuple[LineError, ...]


class _Unreadable(Exception):
    """From this line on nothing can be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.error = LineError(line, message)


def clean(text: str) -> str:
    """One spelling of what looks the same: no blanks around it, single ones inside."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def symbol_problem(symbol: str) -> str:
    """What is wrong with a symbol, with what to do; empty when nothing is."""
    if not symbol:
        return "The symbol is missing. Fill it in, or delete the line."
    if len(symbol) > _LONGEST["symbol"]:
        return f"The symbol has more than {_LONGEST['symbol']} characters. Correct it."
    if not _SYMBOL.fullmatch(symbol):
        return f"{symbol!r} is not a symbol. Write it as the broker does: AAPL, BRK.B."
    return ""


def text_problem(column: str, value: str) -> str:
    """What is wrong with a sector, name or sub-industry; empty when nothing is."""
    words = column.replace("_", "-")
    if len(value) > _LONGEST[column]:
        return f"The {words} has more than {_LONGEST[column]} characters. Shorten it."
    if value.startswith(_FORMULA):
        return (
            f"The {words} starts with {value[0]}, which a spreadsheet would take for a formula. "
            "Write it without."
        )
    if not value.isprintable():
        return f"The {words} holds a character that can't be shown. Type it anew."
    if column == "sector" and value.casefold() == UNKNOWN_SECTOR.casefold():
        return f"{UNKNOWN_SECTOR} is what a symbol without a sector counts as. Name its sector."
    return ""


def parse(content: bytes) -> Parsed:
    """Every line of the file, or what is wrong with it."""
    rows: dict[str, Row] = {}
    errors: list[LineError] = []
    try:
        records = _records(_decoded(content))
        columns = _columns(*next(records, (1, [])))
        for line, cells in records:
            problems = _problems(columns, cells)
            row = None if problems else _row(line, columns, cells)
            if row is not None and (first := rows.setdefault(row.symbol, row)) is not row:
                problems = [f"{row.symbol} stands in line {first.line} already. Keep one of them."]
            errors += [LineError(line, problem) for problem in problems]
        if not rows and not errors:
            raise _Unreadable(2, "There is no symbol below the header. Add a line for each.")
    except _Unreadable as unreadable:
        errors.append(unreadable.error)
    return Parsed(tuple(rows.values()), tuple(errors))


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Unreadable(1, "The file is larger than 2 MB. Split it into several files.")
    if content.startswith(b"PK\x03\x04") or b"\0" in content:
        raise _Unreadable(1, f"This is not a CSV text file. {_SAVE_AS}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, f"The line is not in UTF-8. {_SAVE_AS}") from error


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each record, and its cells; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [clean(cell) for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise _Unreadable(
                line,
                f"The quotes of this line do not match ({error}). Close each, and double those "
                "inside a value. The lines after it were not read.",
            ) from error
        # Lines as an editor counts them: the page that carries the text back relies on it.
        if reader.line_num > MAX_LINES + 1:
            raise _Unreadable(
                MAX_LINES + 2,
                f"The file has more than {MAX_LINES:,} lines below its header. Split it into "
                "several files.",
            )
        if any(cells):
            yield line, cells


def _columns(line: int, cells: list[str]) -> list[str]:
    """The header, in the order of the file."""
    known = f"The columns are {', '.join(COLUMNS)}; the last two may be left out."
    if not cells:
        raise _Unreadable(1, f"The file is empty. {known}")
    if len(cells) == 1 and re.search(r"[;\t|]", cells[0]):
        raise _Unreadable(line, f"The columns are not separated by commas. {_SAVE_AS}")
    columns = [cell.casefold() for cell in cells]
    for cell, column in zip(cells, columns, strict=True):
        if column not in COLUMNS:
            raise _Unreadable(line, f"There is no column {cell!r}. Rename or delete it. {known}")
        if columns.count(column) > 1:
            raise _Unreadable(line, f"The column {column} stands here twice. Delete one.")
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise _Unreadable(line, f"The column {' and '.join(missing)} is missing. {known}")
    return columns


def _problems(columns: list[str], cells: list[str]) -> list[str]:
    if len(cells) != len(columns):
        return [
            f"The line has {len(cells)} values, the header names {len(columns)}. Put a value "
            "that holds a comma in quotes, and leave none out."
        ]
    found = []
    for column, value in zip(columns, cells, strict=True):
        if column == "symbol":
            found.append(symbol_problem(value.upper()))
        elif column == "sector" and not value:
            found.append("The sector is empty. Fill it in, or delete the line.")
        else:
            found.append(text_problem(column, value))
    return [problem for problem in found if problem]


def _row(line: int, columns: list[str], cells: list[str]) -> Row:
    values = dict(zip(columns, cells, strict=True))
    return Row(
        line,
        values["symbol"].upper(),
        values["sector"],
        values.get("name") or None,
        values.get("sub_industry") or None,
    )
