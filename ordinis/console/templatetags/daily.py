"""The cells of a daily report, for templates. Holds no rule."""

from django import template

from ordinis.console.daily_text import shown
from reconciliation.daily_cells import Cell, Table

register = template.Library()
register.filter("shown", shown)

# Characters from which on a text may take several lines.
_LONG = 30


@register.filter
def is_number(table: Table, column: int) -> bool:
    """Whether a column holds numbers: where its first row does."""
    units = [row[column].unit for row in table.rows[:1]]
    return column > 0 and units not in (["text"], ["moment"])


@register.filter
def is_long(cell: Cell) -> bool:
    return len(shown(cell)) > _LONG
