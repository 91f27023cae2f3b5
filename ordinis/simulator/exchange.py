"""The exchange: what a client or a person can make it do, and the steps that follow.

Every command either raises Refusal and has changed nothing, or has taken effect when it returns.
Pure: the caller stores `venue.take_changes()` and then sends `venue.take_events()`.
"""

from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from ordinis.simulator import checks, groups, refusals, replacing
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
        if request.order_class:
            self._accept_group(order, self._legs(order, request))
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
        self.steps.begin_cancel(order)

    def cancel_all(self) -> list[tuple[Order, Refusal | None]]:
        """Every open order with what became of it; groups by their first order."""
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
        self._refuse_spent(request.client_order_id)
        successor = replacing.successor_of(self.venue, old, request)
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
        self.venue.move(order, "new", execution_id=self.venue.draws.identity())
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
            client_order_id="",
        )

    def _refuse_spent(self, client_order_id: str) -> None:
        earlier = self.venue.book.by_client_id(client_order_id)
        if earlier is not None:
            raise refusals.duplicate_client_order_id(earlier)

    def _admit(self, request: OrderRequest) -> Order:
        """Check against the account and make the order, not yet taken in. Raises Refusal."""
        venue, symbol = self.venue, request.asset.symbol
        estimate = NONE
        if request.notional is not None:
            estimate = shares_for(request.notional, checks.market_price(venue, symbol))
        position_intent = checks.intent(venue, symbol, request.side)
        shares = request.qty if request.qty is not None else estimate
        checks.check(venue, request, shares=shares, position_intent=position_intent)
        now = venue.clock()
        trades = venue.market.trades(now, extended_hours=request.extended_hours)
        is_for_opening = request.time_in_force == "opg"
        return Order(
            id=venue.draws.identity(),
            client_order_id=request.client_order_id or venue.draws.identity(),
            sequence=len(venue.book),
            symbol=symbol,
            asset_id=request.asset.id,
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force,
            qty=request.qty,
            notional=request.notional,
            limit_price=(
                request.take_profit_price if request.order_class == "oco" else request.limit_price
            ),
            stop_price=request.stop_price,
            trail_price=request.trail_price,
            trail_percent=request.trail_percent,
            extended_hours=request.extended_hours,
            order_class=request.order_class,
            position_intent=position_intent,
            status="pending_new" if trades and not is_for_opening else "accepted",
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

    def _legs(self, first: Order, request: OrderRequest) -> list[Order]:
        """The exits that come with the first order of a group, `held` until it is their turn."""
        side, intent = first.side, first.position_intent
        if groups.is_entry(first):
            side = "sell" if side == "buy" else "buy"
            intent = f"{side}_to_close"
        prices: list[tuple[str, Decimal | None, Decimal | None]] = []
        if groups.is_entry(first) and request.take_profit_price is not None:
            prices.append(("limit", request.take_profit_price, None))
        if request.stop_loss_stop_price is not None:
            limit = request.stop_loss_limit_price
            kind = "stop" if limit is None else "stop_limit"
            prices.append((kind, limit, request.stop_loss_stop_price))
        return [
            replace(
                first,
                id=self.venue.draws.identity(),
                client_order_id=self.venue.draws.identity(),
                sequence=first.sequence + number,
                side=side,
                position_intent=intent,
                type=kind,
                limit_price=limit_price,
                stop_price=stop_price,
                status="held",
                parent=first.id,
                reserve_price=NONE,
            )
            for number, (kind, limit_price, stop_price) in enumerate(prices, start=1)
        ]

    def _accept_group(self, first: Order, legs: list[Order]) -> None:
        first.legs = tuple(leg.id for leg in legs)
        for order in (first, *legs):
            self.venue.accept(order, announce=False)
        for order in (first, *legs):
            self.venue.emit(order, order.status, order.created_at)

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
