"""What stands in a request's query, read strictly. Raises Refusal for what makes no sense."""

from collections.abc import Mapping

from aiohttp import web

from ordinis.simulator import moments, refusals

# What the gate tells the routes: headers for an answer that is begun before the gate sees it again,
# and by how many seconds a fault wants a list to lag.
HEADERS = web.RequestKey("headers", dict[str, str])
LAG = web.RequestKey("lag", float)


def yes(query: Mapping[str, str], name: str) -> bool:
    """alpaca-py writes booleans as Python does."""
    return query.get(name, "").lower() == "true"


def moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return moments.parse(text)
    except ValueError:
        raise refusals.invalid(f"invalid {name}: {text}") from None


def whole_number(query: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    text = query.get(name)
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise refusals.invalid(f"{name} must be between 1 and {most}")
    return int(text)


def choice(query: Mapping[str, str], name: str, *options: str) -> str:
    """The first option is the default."""
    value = query.get(name) or options[0]
    if value not in options:
        raise refusals.invalid(f"invalid {name}: {value}")
    return value
