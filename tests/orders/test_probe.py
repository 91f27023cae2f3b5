"""Half-open, the place of the order that may try belongs to the one that is sent."""

import pytest

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from risk.models import TradingChange, TradingControl
from tests.conftest import Api, hold, sent
from tests.orders.dependents import again, fill, poll, rest
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.usefixtures("as_it_fills")
def test_the_part_of_an_exit_that_is_sent_tries_and_not_the_rest_that_waits(
    sim: SimulatorServer, api: Api, account: BrokerAccount
) -> None:
    hold(sim, "TSLA", "9", "240")
    exits = {"take_profit": {"limit_price": "200"}}
    parent = rest(sim, api, side="sell", limit_price="260", **exits)
    api.get("/risk/state")
    TradingControl.objects.update(
        breaker="half_open",
        breaker_reasons=[{"code": "error_rate", "message": "m", "limit": "1", "actual": "2"}],
        trips=1,
    )

    fill(sim, parent, "4", price="260")
    poll()
    again()

    part = Order.objects.get(parent=parent, qty=4)
    claimed = TradingChange.objects.get(kind=TradingChange.Kind.PROBE)
    assert claimed.reason == f"Order {part.pk} tries."
    assert [each["body"]["side"] for each in sent(sim)] == ["sell", "buy"]
    assert TradingControl.objects.get(account=account).breaker == "closed"
