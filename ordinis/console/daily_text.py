"""How the cells of a daily report are written: for people, and for a spreadsheet."""

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from ordinis.console import csv_text, text
from reconciliation.daily_cells import Cell, Table


def shown(cell: Cell) -> str:
    """As a person reads it; a dash where nothing was measured."""
    value = cell.value
    if value is None or value == "":
        return text.NONE
    match cell.unit:
        case "dollars":
            return text.money(Decimal(value))
        case "signed_dollars":
            return text.signed_money(Decimal(value))
        case "number":
            return f"{text.shares(Decimal(value))} {cell.after}".rstrip()
        case "count":
            return f"{value:,}"
        case "span":
            return text.span(timedelta(seconds=float(value)))
        case "moment":
            return _moment(value)
        case _:
            return str(value)


def as_csv(tables: Sequence[Table]) -> str:
    """One section after the other, each row with the section's name; numbers without signs that a
    spreadsheet does not know, times in exchange time."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    for table in tables:
        writer.writerow(("Section", *(csv_text.cell(name) for name in table.header)))
        for row in table.rows:
            writer.writerow((table.title, *map(_for_a_spreadsheet, row)))
        writer.writerow(())
    return file.getvalue()


def as_lines(tables: Sequence[Table]) -> Iterator[str]:
    """For a terminal."""
    for table in tables:
        yield f"== {table.title} =="
        if table.rows:
            rows = [table.header, *([shown(cell) for cell in row] for row in table.rows)]
            widths = [max(len(row[at]) for row in rows) for at in range(len(table.header))]
            for row in rows:
                padded = (each.ljust(width) for each, width in zip(row, widths, strict=True))
                yield "  ".join(padded).rstrip()
        else:
            yield table.empty
        if table.note:
            yield table.note
        yield ""


def _for_a_spreadsheet(cell: Cell) -> str:
    if cell.value is None:
        return ""
    if cell.unit == "moment":
        return _moment(cell.value)
    return csv_text.cell(str(cell.value)) if cell.unit == "text" else str(cell.value)


def _moment(value: str) -> str:
    """2026-11-20 16:15:02 ET"""
    return text.moment_in_full(datetime.fromisoformat(value)).partition(" · ")[0]
