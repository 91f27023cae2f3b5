"""Closes an account's positions, each by an ordinary limit order that can only reduce (SPEC K8).

A person has seen every order before it is sent. Never uses the broker's close_position, which
carries no client order id: here a second press finds the orders of the first. Nothing passes while
the account is halted.
"""

import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final, Literal

from django.db import connection

from orders.errors import OrderError
from orders.models import Order
from orders.pricing import tick
from orders.requests import NewOrder
from orders.submission import submit
from ordinis.accounts.models import OPERATOR, BrokerAccount, Strategy
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable
from ordinis.broker.port import PositionReport
from ordinis.logging import correlation_id
from risk import figures, trading
from risk.states import HALTED

log = logging.getLogger("ordinis.orders")

MAX_SLIPPAGE_PCT: Final = Decimal(5)
_TOKEN: Final = re.compile(r"[0-9a-f]{16}")
_AT_ONCE: Final = 8


class TradingHalted(Exception):
    """A halt lets nothing pass but cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The order that closes what is free of a position: shares (`held` is signed) and dollars.
    Without a limit price nothing is sent, and `problem` says why."""

    symbol: str
    side: Literal["buy", "sell"]
    held: Decimal
    qty: Decimal
    price: Decimal | None
    limit_price: Decimal | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one: its order, or why there is none."""

    closing: Closing
    order: Order | None = None
    problem: str = ""


def check_not_halted(account: BrokerAccount) -> None:
    """Raises TradingHalted."""
    if trading.current(account.pk).state == HALTED:
        raise TradingHalted(
            f"{account} is halted: only cancels pass, so nothing can be closed. Whoever may resume "
            "sets it to reduce only first; then orders that close positions pass, and no others."
        )


def propose(account: BrokerAccount, slippage_pct: Decimal) -> list[Closing]:
    """An order for each position that the broker has now. Raises BrokerUnavailable or
    BrokerRefused; ValueError for a slippage that is not allowed."""
    if not (slippage_pct.is_finite() and 0 <= slippage_pct <= MAX_SLIPPAGE_PCT):
        raise ValueError(f"The slippage is 0 to {MAX_SLIPPAGE_PCT} per cent.")
    held = figures.ask(account).positions
    return [_closing(held[symbol], slippage_pct) for symbol in sorted(held) if held[symbol].qty]


def _closing(position: PositionReport, slippage_pct: Decimal) -> Closing:
    side: Literal["buy", "sell"] = "sell" if position.qty > 0 else "buy"
    free, price = abs(position.qty_available), position.current_price
    problem = ""
    if not free:
        problem = "Nothing of it is free: open orders hold it. Cancel them first, then look again."
    elif price is None or not price.is_finite() or price <= 0:
        problem = "The broker gives no price for it. Close it in the broker's own app."
    return Closing(
        symbol=position.symbol,
        side=side,
        held=position.qty,
        qty=free,
        price=price,
        limit_price=None if problem or price is None else marketable(side, price, slippage_pct),
        problem=problem,
    )


def marketable(side: str, price: Decimal, slippage_pct: Decimal) -> Decimal:
    """The price moved to the side on which it trades at once, on the broker's tick; never below
    one tick."""
    share = slippage_pct / 100
    moved = price * (1 - share if side == "sell" else 1 + share)
    step = tick(moved)
    rounding = ROUND_FLOOR if side == "sell" else ROUND_CEILING
    return max((moved / step).to_integral_value(rounding) * step, step)


def flatten(
    account: BrokerAccount, closings: Sequence[Closing], *, token: str, actor: str
) -> list[Sent]:
    """Sends each as an order of the strategy "operator". The same token again sends nothing twice:
    what was sent is found, what was not is sent now. Raises TradingHalted, with nothing sent."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("The token is made with the form: open it again.")
    check_not_halted(account)
    strategy, _ = Strategy.objects.get_or_create(account=account, name=OPERATOR)

    def one(number: int, closing: Closing) -> Sent:
        try:
            return _sent(strategy, closing, f"flat-{token}-{number}", actor)
        finally:
            connection.close()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        under_way = [
            pool.submit(copy_context().run, one, number, closing)
            for number, closing in enumerate(closings)
        ]
        return [each.result() for each in under_way]


def _sent(strategy: Strategy, closing: Closing, client_order_id: str, actor: str) -> Sent:
    if closing.limit_price is None:
        return Sent(closing=closing, problem=closing.problem)
    new = NewOrder(
        client_order_id=client_order_id,
        symbol=closing.symbol,
        side=closing.side,
        type="limit",
        qty=closing.qty,
        limit_price=closing.limit_price,
        reduce_only=True,
    )
    try:
        done = submit(strategy, new, actor=actor, correlation_id=correlation_id.get())
    except OrderError as error:
        return Sent(closing=closing, problem=f"{error}")
    except (BrokerUnavailable, BrokerRefused) as error:
        why = f"Fresh broker data could not be had, so nothing was sent: {error.message}"
        return Sent(closing=closing, problem=why)
    except Exception:  # the other positions must be closed all the same
        log.exception("not closed", extra={"symbol": closing.symbol})
        return Sent(closing=closing, problem="An error of Ordinis itself; its log says which.")
    return Sent(closing=closing, order=done.order)
