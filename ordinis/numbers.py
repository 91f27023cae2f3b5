"""How a decimal is written: in requests to the broker, answers, messages and logs alike."""

from decimal import Decimal


def plain(value: Decimal) -> str:
    """Without exponent or needless zeros: 50, 249.93, 0.000000001."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(value: Decimal | None) -> str | None:
    """A price or an amount of money: at least cents, more digits where there are more."""
    if value is None:
        return None
    text = plain(value)
    digits = len(text.partition(".")[2])
    return text if digits >= 2 else f"{value:.2f}"
