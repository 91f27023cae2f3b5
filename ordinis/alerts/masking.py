"""Blots a channel's address out of a text, whole or in parts.

An address carries its tokens anywhere: as the user, the password, the host, a part of the path or
of the query. Must never let one of them reach a table, a log or a page.
"""

import re
from urllib.parse import quote, unquote, urlsplit

BLOT = "•••"
# A part this short is a word such as "json" or a port, not a token.
_LONGEST_WORD = 5
_PARTS = re.compile(r"[/?&=@:,;#\s]+")


def mask_address(text: str, address: str) -> str:
    """The text without the address and without each of its parts that may be secret."""
    for part in sorted(_secrets(address), key=len, reverse=True):
        text = re.sub(re.escape(part), BLOT, text, flags=re.IGNORECASE)
    return text


def _secrets(address: str) -> set[str]:
    rest = address.partition("://")[2] or address
    parts = {part for part in _PARTS.split(rest) if len(part) > _LONGEST_WORD}
    try:
        split = urlsplit(address)
        parts |= {part for part in (split.username, split.password) if part}
    except ValueError:  # not an address at all
        pass
    whole = {address, rest}
    return {form for part in parts | whole for form in (part, unquote(part), quote(part))} - {""}
