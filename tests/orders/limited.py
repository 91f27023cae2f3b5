"""What tests of limits at work share: setting one, short bodies of orders, and what denied them."""

from datetime import timedelta
from typing import Any

from django.db.models import F

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from risk import figures, trading
from risk.limits import change


def limit(account: BrokerAccount, **values: Any) -> None:
    change(account=account, strategy=None, values=values, reason="The test's.", actor="test")


def set_state(account: BrokerAccount, state: str) -> None:
    trading.set_state(account.pk, state, reason="The desk is at lunch.", actor="ann")


def buy(symbol: str = "TSLA", qty: str = "10", price: str = "200", **more: Any) -> dict[str, Any]:
    return {"symbol": symbol, "side": "buy", "qty": qty, "limit_price": price, **more}


def sell(qty: str, price: str = "300", **more: Any) -> dict[str, Any]:
    return {"symbol": "TSLA", "side": "sell", "qty": qty, "limit_price": price, **more}


def codes(answer: Any) -> list[str]:
    return [violation["code"] for violation in answer.json()["violations"]]


def confirmed_long_ago() -> None:
    """Plays that the broker confirmed all orders so long ago that its figures contain them."""
    Order.objects.update(acknowledged_at=F("acknowledged_at") - timedelta(minutes=1))
    figures._shared.clear()
