"""The report of a desk that traded: real orders at the simulator, a real denial, a hand trade at
the broker that a comparison finds and corrects by a person's decision."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from reconciliation import corrections, daily
from reconciliation.run import reconcile
from risk.figures import database_now
from tests.conftest import Api, hold, quote
from tests.orders.limited import limit
from tests.orders.standing import polled
from tests.reconciliation.conftest import make_break, waiting
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_day_s_trades_drift_and_correction_are_all_in_its_report(
    sim: SimulatorServer,
    book: BrokerAccount,
    api: Api,
    order: Callable[..., dict[str, Any]],
    approver: User,
) -> None:
    limit(book, max_order_qty=60)
    quote(sim, "TSLA", "249")
    bought = polled(api.post("/orders", order(qty="10")).json()["id"], "filled")
    assert api.post("/orders", order(qty="70")).status_code == 422
    hold(sim, "KO", "90", "60")  # 10 sold by hand, behind our back
    found = make_break(book)
    corrections.decide(waiting().pk, "approve", user=approver, comment="Sold by hand.")
    reconcile(book)
    book.refresh_from_db()

    figures = daily.figures_of(book, None, database_now())

    assert bought.average_fill_price is not None
    total = figures["orders"]["total"]
    assert Order.objects.count() == total["received"] == 2
    assert (total["sent"], total["filled"], total["denied"]) == (1, 1, 1)
    assert figures["denials"] == {"max_order_qty": 1}
    assert figures["fills"]["bought"] == f"{(10 * bought.average_fill_price).normalize():f}"
    (kind,) = figures["breaks"]["by_kind"]
    assert (kind["kind"], kind["opened"]) == ("quantity", 1)
    (told,) = figures["breaks"]["listed"]
    assert (told["id"], told["status"]) == (found.pk, "resolved")
    (correction,) = figures["corrections"]["listed"]
    assert (correction["decided_by"], correction["comment"]) == ("approver", "Sold by hand.")
    assert figures["corrections"]["by_people"] == 1
    runs = figures["reconciliation"]
    assert (runs["incomplete"], runs["differed"]) == (0, 2)
    measures = {each["key"]: each for each in figures["scorecard"]["day"]["measures"]}
    assert (measures["signal_to_execution"]["numerator"], total["received"]) == ("1", 2)
    assert measures["acknowledged_share"]["value"] == "100"
    assert measures["submission_p95"]["met"] is True
