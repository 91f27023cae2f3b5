"""What orders commit, and what the checks found of an order, as the console shows it."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.utils import timezone

from orders.models import Order
from ordinis.accounts.models import BrokerAccount, Strategy
from tests.console.conftest import Browse

PAGE = "/orders/order/commitments/"


@pytest.fixture
def on_its_way(strategy: Strategy) -> Order:
    """A buy of 50 TSLA at 250 whose answer is awaited, in an account with $100,000."""
    BrokerAccount.objects.filter(pk=strategy.account_id).update(
        as_of=timezone.now() - timedelta(seconds=1), buying_power=Decimal(100_000)
    )
    return Order.objects.create(
        account=strategy.account,
        strategy=strategy,
        client_order_id="rsi-1",
        fingerprint="",
        symbol="TSLA",
        side="buy",
        qty=Decimal(50),
        type="limit",
        time_in_force="day",
        limit_price=Decimal(250),
        worst_price=Decimal(250),
        status="submitting",
        correlation_id="c",
        chain=uuid4(),
        verdict=[
            {"code": "max_position_pct", "limit": "5", "actual": "1.25", "ok": True},
            {"code": "insufficient_buying_power", "limit": "99000", "actual": "12500", "ok": True},
        ],
    )


def test_the_page_names_each_order_that_counts_with_its_reason(
    browse: Browse, on_its_way: Order
) -> None:
    page = browse("Viewer").get(PAGE).content.decode()

    assert "rsi-1" in page
    assert "$12,500.00" in page
    assert "$87,500.00" in page  # available
    assert "The broker has not confirmed it yet: all of it counts." in page


def test_without_orders_the_page_says_what_will_appear(
    browse: Browse, account: BrokerAccount
) -> None:
    BrokerAccount.objects.update(as_of=timezone.now(), buying_power=Decimal(1000))

    assert "No order counts" in browse("Viewer").get(PAGE).content.decode()


def test_only_who_may_see_orders_sees_the_page_and_nothing_can_be_posted(
    browse: Browse, account: BrokerAccount
) -> None:
    assert browse().get(PAGE).status_code == 403
    assert browse("Viewer").post(PAGE).status_code == 405


def test_an_orders_page_shows_every_check_with_limit_and_actual(
    browse: Browse, on_its_way: Order
) -> None:
    page = browse("Viewer").get(f"/orders/order/{on_its_way.pk}/change/").content.decode()

    assert "2 checks, all passed" in page
    assert "max_position_pct" in page
    assert "1.25" in page
