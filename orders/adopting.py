"""Makes an order of ours of one that was placed outside: in the broker's own app, or by another
program. From then on it counts, can be cancelled here, and its fills are booked.

Must never send anything: it takes in what the broker reports. The caller has locked the account
and reversed what had been booked of it as trades of others.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import uuid4

from django.db import transaction
from django.db.models import Q

from orders import lifecycle, pricing, statuses
from orders.fills import RESTORING
from orders.lifecycle import Origin, Source
from orders.models import Order
from ordinis.accounts.models import OPERATOR, BrokerAccount, Strategy
from ordinis.broker.port import OrderReport, Side
from ordinis.logging import correlation_id
from ordinis.numbers import plain
from risk.checks.short_sale import COLLAR as SHORT_COLLAR
from risk.limits import in_force

_FOLLOWED: Final = ("market", "limit", "stop", "stop_limit", "trailing_stop")
_SIDES: Final[dict[str, Side]] = {"buy": "buy", "sell": "sell"}
_LONGEST_SYMBOL: Final = 16


class NotAdoptable(Exception):
    """An order that can't be followed here; the message says why and what to do instead."""


def standing(account: BrokerAccount, report: OrderReport) -> Order | None:
    """The order of ours that this report is about, where it is one already."""
    theirs = Q(broker_order_id=report.broker_order_id)
    return Order.objects.filter(theirs, account=account).first()


def check(report: OrderReport) -> None:
    """Raises NotAdoptable for what we do not follow."""
    name = report.client_order_id or report.broker_order_id
    kind = str(report.raw.get("order_class") or "simple")
    instrument = str(report.raw.get("asset_class") or "us_equity")
    why = ""
    if not statuses.is_open(report.status):
        why = f"it has ended at the broker ({report.status}); there is nothing left to adopt"
    elif report.status == "pending_replace" or report.replaced_by:
        why = "it is being replaced. Adopt the order that takes its place"
    elif kind != "simple" or report.legs:
        why = f"it is an order of the class {kind}, and only simple orders are followed"
    elif instrument != "us_equity" or len(report.symbol) > _LONGEST_SYMBOL:
        why = f"{report.symbol} ({instrument}) is no share, and only shares are followed"
    elif report.qty is None or report.qty <= 0:
        why = "it is for an amount of dollars, and only orders for a number of shares are followed"
    elif report.side not in _SIDES or report.type not in _FOLLOWED:
        why = f"a {report.type or 'nameless'} order ({report.side}) is not followed"
    elif report.client_order_id.startswith(RESTORING):
        why = "its name is one that only Ordinis gives"
    elif report.replaces and report.filled_qty:
        why = (
            f"it replaced another order, and {plain(report.filled_qty)} shares of the two have "
            "filled already"
        )
    if why:
        raise NotAdoptable(
            f"Order {name} can't be adopted: {why}. Leave it, or cancel it in the broker's own app."
        )


def adopt(
    account: BrokerAccount,
    report: OrderReport,
    *,
    price: Decimal | None,
    held: Decimal,
    actor: str,
    reason: str,
) -> Order:
    """The order as one of the strategy "operator", with what the broker says of it taken in.

    `price` is what a share costs now, `held` the broker's shares (signed): what an order without a
    limit ties up follows from them. Raises NotAdoptable. Called with the account locked, for a
    report that `check` has passed and that is of no order of ours yet.
    """
    assert transaction.get_connection().in_atomic_block, "the account must be locked"
    namesake = Order.objects.filter(account=account, client_order_id=report.client_order_id)
    if namesake.exists():
        raise NotAdoptable(
            f"Another order here has the name {report.client_order_id}. Leave this one, or cancel "
            "it in the broker's own app."
        )
    strategy, _ = Strategy.objects.get_or_create(account=account, name=OPERATOR)
    order = _made(strategy, report)
    order.sells_short = order.side == Order.Side.SELL and held <= 0
    order.worst_price = _worst_price(order, price)
    asked = Origin(Source.OPERATOR, actor, f"Adopted: {reason}")
    # Seen by nobody in this state: the report that follows is part of the same transaction.
    lifecycle.record_intent(order, statuses.SUBMITTING, asked)
    return lifecycle.observe(order.pk, report, Origin(Source.RECONCILE, "broker"))


def _made(strategy: Strategy, report: OrderReport) -> Order:
    assert report.qty is not None, "checked"
    now = datetime.now(UTC)
    return Order(
        id=uuid4(),
        account_id=strategy.account_id,
        strategy=strategy,
        client_order_id=report.client_order_id,
        symbol=report.symbol,
        side=_SIDES[report.side],
        qty=report.qty,
        type=report.type,
        time_in_force=report.time_in_force,
        extended_hours=report.raw.get("extended_hours") is True,
        limit_price=report.limit_price,
        stop_price=None if report.type == "trailing_stop" else report.stop_price,
        trail_price=_number(report, "trail_price"),
        trail_percent=_number(report, "trail_percent"),
        correlation_id=correlation_id.get(),
        created_at=report.created_at or now,
        submitted_at=now,
    )


def _number(report: OrderReport, name: str) -> Decimal | None:
    told = report.raw.get(name)
    return None if told is None else Decimal(str(told))


def _worst_price(order: Order, price: Decimal | None) -> Decimal | None:
    """Dollars a share that it may come to, by the rules for orders of our own."""
    if order.sells_short:  # its limit is a floor: what counts is what a share costs
        asked = None if price is None else price * SHORT_COLLAR
        worst = max(filter(None, (asked, order.limit_price, order.stop_price)), default=None)
        if worst is None:
            raise _unpriced(order)
        return worst
    try:
        return pricing.worst_price(
            side=order.side,
            type=order.type,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
            reference_price=price,
            max_slippage_pct=in_force(order.account_id, order.strategy_id).max_slippage_pct,
        )
    except pricing.Unpriceable as error:
        raise _unpriced(order) from error


def _unpriced(order: Order) -> NotAdoptable:
    return NotAdoptable(
        f"Nothing bounds what order {order.client_order_id} may come to, and the broker gives no "
        f"price for {order.symbol} now. Try again in a moment."
    )
