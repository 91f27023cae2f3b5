"""Text that goes into a CSV. A spreadsheet takes a cell that begins so for a formula, and runs it:
what people or strategies have written must not."""

from typing import Final

_BEGINS_A_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """The text with an apostrophe before what a spreadsheet would calculate. For text alone: a
    number may begin with its sign."""
    return f"'{text}" if text.startswith(_BEGINS_A_FORMULA) else text
