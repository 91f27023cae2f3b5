"""What the clock calls for the circuit breaker. Safe to run twice at once."""

import logging

from orders.outcomes import judge_outcomes
from ordinis.accounts.models import BrokerAccount
from risk import trading

log = logging.getLogger("ordinis.orders")


def breaker() -> None:
    """Judges order outcomes and levels of every served account, and brings what is due: the end
    of a cool-down, of an override, of an order that tried and never had an answer."""
    for account_id in BrokerAccount.served().values_list("pk", flat=True):
        try:
            trading.review(account_id)
            judge_outcomes(account_id)
        except Exception:  # one account that can't be handled must not hold up the others
            log.exception("breaker not judged", extra={"account": account_id})
