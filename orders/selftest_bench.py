"""Where synthetic orders are tried (`orders.selftest`): the account's real figures and limits, in a
transaction that is always rolled back.

Must never send: the symbol is one that no exchange lists, and `submit` is only ever called for an
account that no broker of this process serves, inside a transaction, where nothing may ask the
network.
"""

from copy import copy
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from orders import judgement, lifecycle, statuses, submission
from orders.errors import OrderError
from orders.judgement import Question
from orders.lifecycle import Origin, Source
from orders.models import Order
from orders.requests import NewOrder
from orders.working import WorkingOrders
from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.broker.port import AssetReport, PositionReport
from ordinis.numbers import plain
from risk.checks import Context, Intent
from risk.figures import Figures
from risk.limits import Limits

SYMBOL: Final = "SELFTEST"
WHO: Final = "risk self-test"
CENT: Final = Decimal("0.01")
ONE, TEN, ZERO = Decimal(1), Decimal(10), Decimal(0)
# More than so many positions or outcomes are not made up: the account is locked meanwhile.
MOST: Final = 1000


# How the sentence of a rate that is reached begins.
STRATEGY, ACCOUNT = "The strategy", "The account"


class Off(Exception):
    """The control is not in force; says why."""


@dataclass(frozen=True, slots=True)
class Came:
    """What was sent, in words, and the codes of what stopped it."""

    sent: str
    codes: tuple[str, ...]


@dataclass(slots=True)
class Bench:
    """The locked account with its figures and limits, and a strategy that is not there."""

    account: BrokerAccount
    figures: Figures
    limits: Limits

    def judge(self, intent: Intent, note: str = "", **question: Any) -> Came:
        """As an order is judged. With the violations' codes come those of the reasons for the
        trading state, where that is what stops it."""
        judged = self._judged(intent, **question)
        codes = [violation.code for violation in judged.violations]
        if judged.context.trading.reasons:
            codes += [reason.code for reason in judged.context.trading.reasons]
        return Came(words(intent, note), tuple(codes))

    def around(self, intent: Intent) -> Context:
        return self._judged(intent).context

    def _judged(self, intent: Intent, **question: Any) -> judgement.Judged:
        asked = Question(
            account=self.account, intent=intent, limits=self.limits, order_id=None, **question
        )
        # What `judge` calls under the lock; the figures are made up for some controls, and the
        # same for all, so that an intent is exactly one step beyond its limit.
        orders = WorkingOrders.of(self.account.pk, self.figures.asked_at)
        return judgement.assess(asked, self.account, self.figures, orders)

    def submit(self, strategy: Strategy, new: NewOrder, note: str = "") -> Came:
        """As the API submits."""
        try:
            done = submission.submit(strategy, new, actor=WHO, correlation_id=WHO)
        except OrderError as error:
            whose = [each for each in (STRATEGY, ACCOUNT) if str(error).startswith(each)]
            codes: tuple[str, ...] = (error.code, *whose)
        else:
            codes = (done.order.status,)
        return Came(words(submission.priced(strategy, new, self.limits), note), codes)

    def strategy(self) -> Strategy:
        """Made up, and of an account at no broker: what it submits can't reach one."""
        strategy = Strategy.objects.create(account=self.account, name=f"selftest-{uuid4().hex}")
        strategy.account = copy(self.account)
        strategy.account.broker = "none"
        return strategy

    def store(
        self, status: str = statuses.SUBMITTING, strategy: Strategy | None = None, **changes: Any
    ) -> Order:
        """An order that stands already."""
        order = Order(
            id=uuid4(),
            account=self.account,
            strategy=strategy or self.strategy(),
            client_order_id=f"selftest-{uuid4()}",
            fingerprint="",
            correlation_id=WHO,
            **{**_ORDER, **changes},
        )
        lifecycle.record_intent(order, status, Origin(Source.OPERATOR, WHO))
        return order

    def hold(self, qty: Decimal, symbol: str = SYMBOL) -> None:
        """A position of so many shares at a dollar."""
        self.figures = replace(
            self.figures, positions={**self.figures.positions, symbol: _position(symbol, qty)}
        )

    def told(self, **account: Any) -> None:
        """Other figures of the account."""
        self.figures = replace(self.figures, account=replace(self.figures.account, **account))


_ORDER: Final = {
    "symbol": SYMBOL,
    "side": "buy",
    "qty": ONE,
    "type": "limit",
    "time_in_force": "day",
    "limit_price": TEN,
    "worst_price": TEN,
}


def _position(symbol: str, qty: Decimal) -> PositionReport:
    return PositionReport(
        symbol=symbol,
        qty=qty,
        qty_available=qty,
        average_price=ONE,
        market_value=qty,
        current_price=ONE,
        raw={},
    )


def asset_like(**changes: bool) -> AssetReport:
    can = {"tradable": True, "fractionable": True, "shortable": True, "marginable": True}
    return AssetReport(
        symbol=SYMBOL, asset_class="us_equity", status="active", raw={}, **{**can, **changes}
    )


def buy(
    price: Decimal = TEN,
    qty: Decimal = ONE,
    *,
    symbol: str = SYMBOL,
    side: str = "buy",
    **changes: Any,
) -> Intent:
    return Intent(
        symbol=symbol, side=side, qty=qty, limit_price=price, worst_price=price, **changes
    )


def sell(qty: Decimal = ONE, price: Decimal = TEN, **changes: Any) -> Intent:
    return buy(price, qty, side="sell", **changes)


def new_order(**changes: Any) -> NewOrder:
    values: dict[str, Any] = {"type": "limit", "limit_price": TEN, "qty": ONE, "side": "buy"}
    return NewOrder(client_order_id=None, symbol=SYMBOL, **{**values, **changes})


def words(order: Intent | Order, note: str) -> str:
    price = "the market" if order.limit_price is None else plain(order.limit_price)
    said = f"{order.side} {plain(order.qty)} {order.symbol}, {order.type} at {price}"
    return f"{said}; {note}" if note else said
