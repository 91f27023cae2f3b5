"""Orders that belong together: OCO, bracket and OTO, and what the fate of one means for the rest.

An OCO is a take-profit with its stop-loss as leg. A bracket is an entry with both exits as legs, an
OTO an entry with one; their exits are `held` until the entry is completely filled. Must never leave
two exits open that could sell the same shares twice.
"""

from ordinis.simulator.order import Order
from ordinis.simulator.venue import Venue

ENTERING = frozenset({"bracket", "oto"})
CLASSES = frozenset({"oco", *ENTERING})


def members(venue: Venue, order: Order) -> list[Order]:
    """The whole group, its first order first; of an order that stands alone, itself."""
    first = venue.book[order.parent] if order.parent else order
    return [first, *venue.legs(first)]


def waits(venue: Venue, order: Order) -> bool:
    """Whether it is an exit whose entry has not filled yet."""
    if order.parent is None or order.order_class not in ENTERING:
        return False
    return venue.book[order.parent].status != "filled"


def is_entry(order: Order) -> bool:
    return order.parent is None and order.order_class in ENTERING


def peers(venue: Venue, order: Order) -> list[Order]:
    """The other open exits for the same shares."""
    if not order.order_class or is_entry(order):
        return []
    return [
        other
        for other in members(venue, order)
        if other is not order and other.is_open and not is_entry(other)
    ]


def is_secondary(venue: Venue, order: Order) -> bool:
    """Whether it is `held` behind a take-profit that works for the same shares."""
    return order.order_class == "oco" and order.parent is not None and bool(peers(venue, order))


def holds_shares(venue: Venue, order: Order) -> bool:
    """Whether its shares count as held: once for a group, and not before there are any."""
    if not order.order_class:
        return True
    if waits(venue, order):
        return False
    first = next((it for it in members(venue, order) if it.is_open and not is_entry(it)), order)
    # The successor of a replaced order is no member yet; only what it adds counts.
    return order is first or order not in members(venue, order)


def follow(venue: Venue, order: Order) -> list[Order]:
    """An order of a group moved: its peers give way, its exits set out; those are returned."""
    if not order.order_class:
        return []
    if is_entry(order):
        return _follow_entry(venue, order)
    if order.status == "filled":
        _cancel(venue, peers(venue, order))
    elif order.is_open:
        for peer in peers(venue, order):
            shares = peer.filled_qty + order.remaining
            if order.filled_qty and peer.qty != shares:
                peer.qty = shares
                venue.touch(peer)
    elif order.status != "replaced":
        _cancel(venue, peers(venue, order))
    return []


def _follow_entry(venue: Venue, entry: Order) -> list[Order]:
    exits = [leg for leg in venue.legs(entry) if leg.status == "held"]
    if entry.status == "filled":
        for leg in exits:
            leg.submitted_at = venue.clock()
            venue.move(leg, "new", execution_id=venue.draws.identity())
        return exits
    if not entry.is_open and entry.status != "replaced":
        # Also when it was filled in part: those shares stay without exits, as at Alpaca.
        _cancel(venue, exits)
    return []


def _cancel(venue: Venue, orders: list[Order]) -> None:
    for order in orders:
        venue.move(order, "canceled")


def hand_over(venue: Venue, old: Order, successor: Order) -> None:
    """A replaced order's place in its group goes to its successor."""
    successor.parent, successor.legs = old.parent, old.legs
    for leg in venue.legs(successor):
        leg.parent = successor.id
        venue.touch(leg)
    if old.parent is not None:
        parent = venue.book[old.parent]
        parent.legs = tuple(successor.id if leg == old.id else leg for leg in parent.legs)
        venue.touch(parent)
