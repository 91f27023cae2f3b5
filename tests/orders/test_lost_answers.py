"""However an answer is lost: no order is doubled, none is believed failed that exists, none alive
that does not, and all are definite within 45 s of the faults' end."""

from datetime import timedelta

import pytest
from django.conf import LazySettings

from orders import resolver
from ordinis.accounts.models import SCOPES, ApiToken, Strategy
from ordinis.verify import violations
from tests import lost_answers
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "orders", [len(lost_answers.WAYS), pytest.param(1000, marks=pytest.mark.long)]
)
def test_lost_answers_cost_nothing(
    sim: SimulatorServer,
    strategy: Strategy,
    settings: LazySettings,
    monkeypatch: pytest.MonkeyPatch,
    orders: int,
) -> None:
    settings.BROKER_TIMEOUT = lost_answers.TIMEOUT
    if orders < 1000:  # the sample does not wait the whole ten seconds for three misses
        monkeypatch.setattr(resolver, "_OVER", timedelta(seconds=1))
    lost_answers.prepare(sim)
    _, token = ApiToken.issue(strategy, SCOPES)

    figures = lost_answers.through_ordinis(sim, token, orders)

    assert figures.orders == orders
    assert figures.duplicates == 0
    assert figures.believed_failed_that_exist == 0
    assert figures.believed_alive_that_do_not == 0
    assert figures.undecided == 0
    assert figures.seconds < 45
    assert list(violations()) == []


def test_alpaca_py_alone_doubles_orders_and_believes_existing_ones_failed(
    sim: SimulatorServer,
) -> None:
    """Why all this is needed; the day this fails the wrapping may be reconsidered."""
    lost_answers.prepare(sim)

    figures = lost_answers.through_alpaca_py_alone(sim, 8)

    assert figures.duplicates > 0
    assert figures.believed_failed_that_exist > 0
