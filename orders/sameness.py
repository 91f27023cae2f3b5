"""Whether a report is of the order that we sent, which the first word on an order must be.

Decides nothing of what follows from a mismatch.
"""

from collections.abc import Sequence
from datetime import timedelta

from orders.models import Order
from ordinis.broker.port import OrderReport
from ordinis.numbers import plain


class MismatchedReport(Exception):
    """The broker's order is not the one we sent; nothing was taken from it. `foreign`: by its time
    it was made before ours. Where the clocks agree that proves that ours does not exist, since an
    id is spent for ever."""

    def __init__(self, message: str, report: OrderReport, *, foreign: bool) -> None:
        super().__init__(message)
        self.report = report
        self.foreign = foreign


# How far the broker's clock and ours may be apart.
CLOCKS_DIFFER = timedelta(seconds=30)


def has_shrunk(report: OrderReport, chain: Sequence[Order]) -> bool:
    """Whether the other order of a pair took shares of it: the broker lowers its quantity then."""
    paired = any(order.order_class == "oco" or order.leg_of_id is not None for order in chain)
    return paired and report.qty is not None and report.qty < chain[0].qty


def check_same(order: Order, report: OrderReport, *, shrunk: bool) -> None:
    if order.broker_order_id == report.broker_order_id:
        return
    ours = (order.symbol, order.side, report.qty if shrunk else order.qty)
    theirs = (report.symbol, report.side, report.qty)
    # Alpaca may make a stop a stop-limit, and moves the stop of a trailing order: only what we
    # gave must be the same.
    types = {order.type, "stop_limit"} if order.type == "stop" else {order.type}
    same_prices = all(
        given is None or given == told
        for given, told in (
            (order.limit_price, report.limit_price),
            (order.stop_price, report.stop_price),
        )
    )
    # The broker names the leg of a pair as it likes: we know it by the order whose leg it is.
    named = order.leg_of_id is not None or order.client_order_id == report.client_order_id
    foreign = report.created_at is not None and report.created_at < order.created_at - CLOCKS_DIFFER
    same = ours == theirs and report.type in types and same_prices and named
    if order.broker_order_id is not None or not same or foreign:
        raise MismatchedReport(
            f"The broker's order {report.broker_order_id} ({report.side} {report.qty} "
            f"{report.symbol}, {report.type}, at {_at(report)}) is not order "
            f"{order.client_order_id} ({order.side} {order.qty:f} {order.symbol}, {order.type}, "
            f"at {_at(order)}).",
            report,
            foreign=foreign,
        )


def _at(order: Order | OrderReport) -> str:
    prices = [plain(price) for price in (order.limit_price, order.stop_price) if price is not None]
    return " and ".join(prices) or "the market"
