"""Makes the dependent orders of a parent: what they are and whether they make sense. Stores and
sends nothing; `orders.dependents` does when their time comes (SPEC O9)."""

import dataclasses
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from uuid import uuid4

from orders import pricing, terms
from orders.chains import Chain
from orders.errors import OrderSubmissionError
from orders.models import Order
from orders.requests import Exit, NewOrder
from ordinis.numbers import plain


def of(parent: Order, new: NewOrder) -> list[Order]:
    """The take-profit and stop-loss that were asked for with an order. Raises
    OrderSubmissionError when one is on the wrong side of the order's price, or of the other."""
    made = [
        _make(parent, role, wanted)
        for role, wanted in (
            (Order.Role.TAKE_PROFIT, new.take_profit),
            (Order.Role.STOP_LOSS, new.stop_loss),
        )
        if wanted is not None
    ]
    check_prices(parent, made)
    if len({each.time_in_force for each in made}) > 1:
        raise OrderSubmissionError(
            "dependents_differ",
            "take_profit and stop_loss are sent as one pair: give both the same time_in_force.",
        )
    if len(made) > 1 and parent.side == "sell":
        # Bought back as a pair would be the exit of a short, which a sell of what is held is not.
        raise OrderSubmissionError(
            "pair_needs_buy",
            "The broker takes take_profit and stop_loss together only as the exits of a position. "
            "What follows a sell is a new buy: give one of the two.",
        )
    return made


def terms_of(exits: list[Order]) -> list[terms.Terms]:
    """What must hold for them: each for itself, or both as the pair that they are sent as."""
    if len(exits) == 2:
        take_profit, stop_loss = exits
        pair = dataclasses.replace(
            terms.of(take_profit), order_class="oco", stop_price=stop_loss.stop_price
        )
        return [pair, terms.of(stop_loss)]
    return [terms.of(each) for each in exits]


def bind_to(order: Order, new: NewOrder) -> None:
    """Makes an order the dependent of the standing one that it names. Raises OrderSubmissionError
    when it can't be an exit of that one."""
    assert new.parent is not None, "it names one"
    parent = Order.objects.filter(pk=new.parent, strategy_id=order.strategy_id).first()
    if parent is None:
        raise OrderSubmissionError(
            "parent_not_found", "This token's strategy has no order with the id given as parent."
        )
    if parent.parent_id is not None:
        raise OrderSubmissionError(
            "parent_is_dependent", "The parent itself waits for another order; name that one."
        )
    if parent.symbol != order.symbol or parent.side == order.side:
        raise OrderSubmissionError(
            "parent_differs",
            f"A dependent order takes the other side of its parent ({parent.side} "
            f"{parent.symbol}), in the same symbol.",
        )
    chain = Chain.of(parent.pk)
    if order.qty > chain.qty:
        raise OrderSubmissionError(
            "parent_too_small",
            f"The parent is of {plain(chain.qty)} shares; this is for {plain(order.qty)}.",
        )
    if not chain.is_open and not chain.filled_qty:
        raise OrderSubmissionError(
            "parent_closed", f"The parent has ended ({chain.last.status}) with nothing filled."
        )
    order.parent, order.role = parent, Order.Role.DEPENDENT


def _make(parent: Order, role: Order.Role, wanted: Exit) -> Order:
    if role == Order.Role.TAKE_PROFIT:
        order_type = "limit"
    else:
        order_type = "stop" if wanted.limit_price is None else "stop_limit"
    return Order(
        id=uuid4(),
        account=parent.account,
        strategy=parent.strategy,
        client_order_id=f"{role}-{uuid4()}",
        parent=parent,
        role=role,
        symbol=parent.symbol,
        side="sell" if parent.side == "buy" else "buy",
        qty=parent.qty,
        type=order_type,
        time_in_force=wanted.time_in_force,
        limit_price=wanted.limit_price,
        stop_price=wanted.stop_price,
        worst_price=wanted.limit_price or pricing.collared(wanted.stop_price or Decimal(0)),
        correlation_id=parent.correlation_id,
    )


def check_prices(parent: Order, exits: Iterable[Order]) -> None:
    """For a buy: stop below entry below target; for a sell the other way round. Raises
    OrderSubmissionError."""
    by_role = {each.role: each for each in exits}
    stop_loss = by_role.get(Order.Role.STOP_LOSS)
    take_profit = by_role.get(Order.Role.TAKE_PROFIT)
    ladder = [
        ("stop_loss.stop_price", stop_loss.stop_price if stop_loss else None),
        ("the order's price", parent.limit_price or parent.stop_price or parent.reference_price),
        ("take_profit.limit_price", take_profit.limit_price if take_profit else None),
    ]
    rungs = [(name, price) for name, price in ladder if price is not None]
    for (low, below), (high, above) in pairwise(rungs):
        right = below < above if parent.side == "buy" else below > above
        if not right:
            word = "below" if parent.side == "buy" else "above"
            raise OrderSubmissionError(
                "dependent_price_wrong_side",
                f"{low} ({plain(below)}) must be {word} {high} ({plain(above)}) "
                f"for a {parent.side} order.",
            )
