"""One consumer follows an account's stream; a second one waits."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from orders.models import Fill, Order
from orders.stream_lease import LeaseUnavailable, StreamLease
from ordinis.accounts.models import BrokerAccount
from tests.conftest import Api, quote
from tests.listening import Listening, listeners
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_a_second_consumer_waits_and_takes_over(
    sim: SimulatorServer,
    account: BrokerAccount,
    api: Api,
    order: MakeOrder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "ordinis.stream")
    quote(sim, "TSLA", "249")
    with Listening(account) as first:
        until(lambda: listeners(sim) == 1)
        with Listening(account):
            until(lambda: "waiting to take over" in caplog.text)
            assert listeners(sim) == 1

            first.stop()
            until(lambda: listeners(sim) == 1)
            api.post("/orders", order())
            until(lambda: Order.objects.get().status == "filled")

    assert not Fill.objects.get().inferred


def test_a_lease_whose_connection_is_gone_is_not_held_and_can_be_taken_anew(
    account: BrokerAccount,
) -> None:
    lease = StreamLease(account.pk)
    assert not lease.is_held()
    assert lease.take()
    assert lease.is_held()
    _end_all_leases()
    assert not lease.is_held()

    assert lease.take()
    _end_all_leases()
    with pytest.raises(LeaseUnavailable):
        lease.take()

    assert lease.take()
    lease.release()


def test_losing_the_lease_stops_the_consumer_until_it_is_held_again(
    sim: SimulatorServer, account: BrokerAccount, api: Api, order: MakeOrder
) -> None:
    quote(sim, "TSLA", "249")
    other = StreamLease(account.pk)
    with Listening(account):
        until(lambda: listeners(sim) == 1)
        assert not other.take()

        _end_all_leases()
        until(other.take, every=0.001)
        until(lambda: listeners(sim) == 0)
        other.release()

        until(lambda: listeners(sim) == 1)
        api.post("/orders", order())
        until(lambda: Order.objects.get().status == "filled")


def _end_all_leases() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks JOIN pg_database d "
            "ON d.oid = database AND datname = current_database() "
            "WHERE locktype = 'advisory' AND granted"
        )
