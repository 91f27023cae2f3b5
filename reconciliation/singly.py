"""The broker's answer for one position by itself, beside what its list says."""

from decimal import Decimal

from ordinis.broker.errors import BrokerUnavailable
from ordinis.broker.port import Broker
from reconciliation.facts import ZERO

_NOT_FOUND = 404


def shares(broker: Broker, symbol: str) -> Decimal | None:
    """Signed shares. None where the broker has no such answer to give: a 404 that is not its word
    on the position; then its lists are all there is, and nothing is corrected by itself.

    Raises BrokerUnavailable or BrokerRefused.
    """
    try:
        held = broker.position(symbol)
    except BrokerUnavailable as error:
        if is_not_offered(error):
            return None
        raise
    return ZERO if held is None else held.qty


def is_not_offered(error: BrokerUnavailable) -> bool:
    """Whether the broker has no such address: asking again will not help."""
    return error.status == _NOT_FOUND
