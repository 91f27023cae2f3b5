"""What explains a difference, in words: for page, API, report and alert alike."""

from collections.abc import Mapping
from typing import Any

_HINTS = {
    "account_reset": (
        "The broker shows no position at all: the account was begun anew, or its answer is wrong."
    ),
    "wrong_account": (
        "The broker's positions have no symbol in common with our book: these look like the keys "
        "of another account."
    ),
    "": "So much at once is hardly a slip: look at the account in the broker's own app.",
}


def explained(explanation: Mapping[str, Any] | None) -> str:
    """A sentence or two; empty where nothing explains it."""
    if not explanation:
        return ""
    found = dict(explanation)
    match found.pop("code"):
        case "fill_on_its_way":
            return (
                f"Order {found['client_order_id']} of ours is open: a fill of it may be known to "
                "one side only so far."
            )
        case "unresolved_order":
            return (
                f"The outcome of order {found['client_order_id']} is not known yet; it may be what "
                "differs. It is being looked up."
            )
        case "external_trades":
            return f"{_trades(found)}, for exactly this difference."
        case "external_trades_in_part":
            return f"{_trades(found)}: a part of this difference."
        case "split":
            told = (
                "The broker's activities name it."
                if found["told"]
                else "The broker's activities do not name it (yet)."
            )
            if not found["ratio"]:
                return "The broker's activities name a split of exactly these shares."
            return f"A {found['ratio']} split (new for old): shares and average fit it. {told}"
        case "corporate_action":
            return f"The broker's activities name a {found['kind']} of these shares."
        case "mass":
            shown = ", ".join(found["symbols"])
            return (
                f"{found['positions']} of {found['of']} differ at once: {shown}. "
                f"{_HINTS[found['hint']]}"
            )
        case other:
            return str(other).replace("_", " ")


def _trades(found: Mapping[str, Any]) -> str:
    many = "" if found["count"] == 1 else f" in {found['count']} fills"
    qty = str(found["qty"])
    signed = qty if qty.startswith("-") else f"+{qty}"
    return f"Traded at the broker past Ordinis: {signed} at ${found['price']}{many}"
