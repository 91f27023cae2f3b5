"""The exchange: what a client or a person can make it do, and the steps that follow.

Every command either raises Refusal and has changed nothing, or has taken effect when it returns.
Pure: the caller stores `venue.take_changes()` and then sends `venue.take_events()`.
"""

import uuid
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from ordinis.simulator import checks, refusals
from ordinis.simulator.moments import Clock
from ordinis.simulator.order import NANO_SHARE, NONE, TERMINAL, Order, shares_for
from ordinis.simulator.refusals import Refusal
from ordinis.simulator.request import OrderRequest, ReplaceRequest
from ordinis.simulator.steps import Steps
from ordinis.simulator.venue import INITIAL_CASH, Venue


class Exchange:
    """The engine behind every route."""

    def __init__(self, clock: Clock, seed: int, cash: Decimal = INITIAL_CASH) -> None:
        self.venue = Venue(clock, seed, cash)
        self.steps = Steps(self.venue)

    def find(self, order_id: str) -> Order:
        order = self.venue.book.get(order_id)
        if order is None:
            raise refusals.order_not_found(order_id)
        return order

    def find_by_client_id(self, client_order_id: str) -> Order:
        order = self.venue.book.by_client_id(client_order_id)
        if order is None:
            raise refusals.order_not_found(client_order_id)
        return order

    def submit(self, request: OrderRequest) -> Order:
        """Take an order in: `pending_new` while the market trades, else `accepted`."""
        self._refuse_spent(request.client_order_id)
        order = self._admit(request)
        if request.order_class == "oco":
            self._accept_pair(order, request)
        else:
            self.venue.accept(order)
        if order.status == "pending_new":
            self.steps.start(order)
        return order

    def cancel(self, order_id: str) -> None:
        """Ask for the end of an order; it may still fill before that comes."""
        order = self.find(order_id)
        if order.status == "canceled":
            return  # observed: cancelling a cancelled order succeeds in silence
        if order.status == "pending_cancel":
            raise refusals.invalid("order pending cancel")
        if order.status in TERMINAL:
            raise refusals.already(order.status)
        if order.status == "pending_replace" or self._replacing(order):
            raise refusals.invalid("order pending replace")
        if order.parent is not None and self._follows_parent(order):
            self.cancel(order.parent)
            return
        self._begin_cancel(order)

    def cancel_all(self) -> list[tuple[Order, Refusal | None]]:
        """Every open order with what became of it; pairs by their parents."""
        results: list[tuple[Order, Refusal | None]] = []
        for order in self.venue.book.open():
            if order.status == "pending_cancel" or self._follows_parent(order):
                continue
            try:
                self.cancel(order.id)
                results.append((order, None))
            except Refusal as refusal:
                results.append((order, refusal))
        return results

    def cancel_all_now(self) -> None:
        """Cancel without the usual delay, so that the shares are free at once."""
        for order, refusal in self.cancel_all():
            if refusal is None:
                self.steps.finish_cancel(order)

    def replace(self, order_id: str, request: ReplaceRequest) -> Order:
        """A successor that takes over once the venue confirms."""
        old = self.find(order_id)
        if old.status not in {"new", "partially_filled"}:
            raise refusals.not_replaceable(old.status)
        if old.notional is not None or old.order_class or old.parent:
            raise refusals.invalid("order cannot be replaced")
        self._refuse_spent(request.client_order_id)
        qty = request.qty if request.qty is not None else old.shares
        if qty <= old.filled_qty:
            raise refusals.invalid("unable to replace order, qty must be > filled_qty")
        limit_price = request.limit_price if old.limit_price is not None else None
        stop_price = request.stop_price if old.stop_price is not None else None
        limit_price, stop_price = limit_price or old.limit_price, stop_price or old.stop_price
        price = (limit_price or stop_price or old.reserve_price) if old.opens else NONE
        if old.position_intent == "sell_to_open":
            price = max(price, old.reserve_price)
        checks.check_replacement(self.venue, old, shares=qty, price=price)
        now, time_in_force = self.venue.clock(), request.time_in_force or old.time_in_force
        successor = replace(
            old,
            id=str(uuid.uuid4()),
            client_order_id=request.client_order_id,
            sequence=len(self.venue.book),
            qty=qty,
            limit_price=limit_price,
            stop_price=stop_price,
            trail_price=request.trail if request.trail and old.trail_price else old.trail_price,
            trail_percent=(
                request.trail if request.trail and old.trail_percent else old.trail_percent
            ),
            time_in_force=time_in_force,
            expires_at=self.venue.market.expiry(
                now, time_in_force=time_in_force, extended_hours=old.extended_hours
            ),
            status="pending_new",
            created_at=now,
            updated_at=now,
            submitted_at=now,
            filled_qty=NONE,
            filled_value=NONE,
            filled_at=None,
            replaces=old.id,
            triggered=False,
            reserve_price=price,
            reserved=NONE,
        )
        self.venue.move(old, "pending_replace")
        self.venue.accept(successor)
        self.steps.schedule(successor, "replace", self.venue.options.replace_delay)
        return successor

    def close_position(
        self, symbol: str, *, qty: Decimal | None = None, percentage: Decimal | None = None
    ) -> Order:
        """A market order over the position, or a part of it."""
        held = self.venue.portfolio.qty(symbol)
        if not held:
            raise refusals.position_not_found()
        if percentage is not None:
            qty = (abs(held) * percentage / 100).quantize(NANO_SHARE, ROUND_DOWN)
        return self.submit(
            self._market_order(symbol, "sell" if held > 0 else "buy", qty or abs(held))
        )

    def trade_by_hand(
        self, symbol: str, side: str, qty: Decimal, price: Decimal | None = None
    ) -> Order:
        """What a person does in the broker's own app: an order that fills on the spot."""
        order = self._admit(self._market_order(symbol, side, qty))
        order.status, order.eligible_at = "pending_new", order.created_at
        self.venue.accept(order)
        self.venue.move(order, "new", execution_id=str(uuid.uuid4()))
        quote = self.venue.prices[order.symbol]
        self.steps.fill(order, qty, price or (quote.ask if side == "buy" else quote.bid))
        return order

    def _market_order(self, symbol: str, side: str, qty: Decimal) -> OrderRequest:
        asset = self.venue.listing.get(symbol)
        if asset is None:
            raise refusals.unknown_symbol(symbol)
        return OrderRequest(
            asset=asset,
            side=side,
            type="market",
            time_in_force="day",
            qty=qty,
            notional=None,
            limit_price=None,
            stop_price=None,
            trail_price=None,
            trail_percent=None,
            extended_hours=False,
            client_order_id=str(uuid.uuid4()),
        )

    def _refuse_spent(self, client_order_id: str) -> None:
        earlier = self.venue.book.by_client_id(client_order_id)
        if earlier is not None:
            raise refusals.duplicate_client_order_id(earlier)

    def _admit(self, request: OrderRequest) -> Order:
        """Check against the account and make the order, not yet taken in. Raises Refusal."""
        venue, symbol = self.venue, request.asset.symbol
        quote = venue.prices[symbol]
        estimate = NONE
        if request.notional is not None:
            estimate = shares_for(request.notional, quote.ask)
        position_intent = checks.intent(venue, symbol, request.side)
        shares = request.qty if request.qty is not None else estimate
        checks.check(venue, request, shares=shares, position_intent=position_intent)
        now = venue.clock()
        trades = venue.market.trades(now, extended_hours=request.extended_hours)
        return Order(
            id=str(uuid.uuid4()),
            client_order_id=request.client_order_id,
            sequence=len(venue.book),
            symbol=symbol,
            asset_id=request.asset.id,
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force,
            qty=request.qty,
            notional=request.notional,
            limit_price=request.take_profit_price or request.limit_price,
            stop_price=request.stop_price,
            trail_price=request.trail_price,
            trail_percent=request.trail_percent,
            extended_hours=request.extended_hours,
            order_class=request.order_class,
            position_intent=position_intent,
            status="pending_new" if trades else "accepted",
            created_at=now,
            updated_at=now,
            submitted_at=now,
            expires_at=venue.market.expiry(
                now,
                time_in_force=request.time_in_force,
                extended_hours=request.extended_hours,
            ),
            estimate=estimate,
            reserve_price=checks.reserve_price(venue, request, position_intent),
        )

    def _accept_pair(self, profit: Order, request: OrderRequest) -> None:
        """A take-profit with its stop-loss as leg: the first to fill ends the other."""
        stop = replace(
            profit,
            id=str(uuid.uuid4()),
            client_order_id=str(uuid.uuid4()),
            sequence=profit.sequence + 1,
            type="stop" if request.stop_loss_limit_price is None else "stop_limit",
            limit_price=request.stop_loss_limit_price,
            stop_price=request.stop_loss_stop_price,
            status="held",
            parent=profit.id,
        )
        profit.legs = (stop.id,)
        self.venue.accept(profit, announce=False)
        self.venue.accept(stop, announce=False)
        for order in (profit, stop):
            self.venue.emit(order, order.status, order.created_at)

    def _begin_cancel(self, order: Order) -> None:
        order.cancel_requested_at = self.venue.clock()
        self.venue.move(order, "pending_cancel")
        self.steps.schedule(order, "cancel", self.venue.options.cancel_delay)

    def _follows_parent(self, order: Order) -> bool:
        """Whether it is the leg of a pair that still stands."""
        return order.parent is not None and self.venue.book[order.parent].is_open

    def _replacing(self, order: Order) -> bool:
        """Whether it is a successor whose predecessor has not given way yet."""
        return (
            order.replaces is not None
            and order.status == "pending_new"
            and self.venue.book[order.replaces].is_open
        )
