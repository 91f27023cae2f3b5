"""What the tests of the trading state share; and `python -m tests.risk.trading_desk`, a process of
its own that reads the state, or tries to be the one whose order may try."""

import os
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from ordinis.accounts.models import BrokerAccount
    from risk.breaker import Outcome
    from risk.figures import Figures
    from risk.states import TradingState


def figures(
    equity: str | Decimal = "100000",
    buying_power: str | Decimal = "50000",
    asked_at: datetime | None = None,
) -> "Figures":
    """What the broker says of the account, now unless told otherwise."""
    from ordinis.broker.port import AccountReport
    from risk.figures import Figures, database_now

    return Figures(
        account=AccountReport(
            account_number="1",
            status="ACTIVE",
            equity=Decimal(equity),
            cash=Decimal(0),
            buying_power=Decimal(buying_power),
            trading_blocked=False,
            raw={},
        ),
        positions={},
        asked_at=asked_at or database_now(),
        received=monotonic(),
    )


def judged(account: "BrokerAccount", with_figures: "Figures | None" = None) -> "TradingState":
    """The state that an order meets which is judged now."""
    from django.db import transaction

    from ordinis.accounts.models import BrokerAccount
    from risk import trading
    from risk.limits import in_force

    with transaction.atomic():
        locked = BrokerAccount.lock(account.pk)
        return trading.under_lock(locked, with_figures or figures(), in_force(account.pk))


def tries(account: "BrokerAccount", order_id: UUID) -> bool:
    """Whether this order, judged now, is the one that may try."""
    from django.db import transaction

    from ordinis.accounts.models import BrokerAccount
    from risk import trading
    from risk.limits import in_force

    with transaction.atomic():
        locked = BrokerAccount.lock(account.pk)
        state = trading.under_lock(locked, figures(), in_force(account.pk))
        if state.may_probe:
            trading.claim_probe(locked, order_id)
        return state.may_probe


def failures(count: int, message: str = "the symbol is halted") -> "list[Outcome]":
    """So many refusals by the broker, just now."""
    from risk.breaker import Outcome, is_for_funds
    from risk.figures import database_now

    now = database_now()
    return [
        Outcome(
            at=now - timedelta(microseconds=number),
            failed=True,
            order_id=uuid4(),
            funds=is_for_funds(message),
            message=message,
        )
        for number in range(count)
    ]


def trip(account: "BrokerAccount") -> None:
    """Opens the breaker: five failures in a row."""
    from risk import trading
    from risk.limits import in_force

    trading.note_outcomes(account.pk, failures(5), in_force(account.pk))


def cool_down(account: "BrokerAccount") -> None:
    """Plays that the cool-down is over."""
    from risk.figures import database_now
    from risk.models import TradingControl

    TradingControl.objects.filter(account=account).update(retry_at=database_now())


def main(account_id: int, what: str, token: str = "") -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
    django.setup()
    from ordinis.accounts.models import BrokerAccount
    from risk import trading

    account = BrokerAccount.objects.get(pk=account_id)
    told: object = asdict(trading.current(account_id))
    if what == "claim":
        told = tries(account, uuid4())
    elif what == "order":
        told = _send(token)
    sys.stdout.write(f"{told}\n")


def _send(token: str) -> int:
    from django.test import Client

    client = Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {token}"})
    body = {"symbol": "TSLA", "side": "buy", "qty": "1", "limit_price": "250.00"}
    answer = client.post("/api/v1/orders", body, content_type="application/json")
    return answer.status_code


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
