"""Books, the broker's facts and expected differences in few words, for tables of scenarios.

Shares and prices are given as texts; nothing here looks at a clock or a database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from reconciliation.breaks import severity
from reconciliation.facts import (
    Baseline,
    Book,
    BookOrder,
    BookPosition,
    BrokerOrder,
    BrokerPosition,
    CorporateAction,
    Facts,
    Found,
    OutsideTrade,
)
from risk.limit_values import Limits

# Shares, average price, and (the broker's) present price: as many as are known.
Held = Mapping[str, tuple[str | None, ...]]
_NOON = datetime(2026, 1, 20, 17, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A difference as a scenario states it."""

    kind: str
    subject: str
    local: str = "0"
    broker: str = "0"
    value: str | None = None
    explained: Mapping[str, Any] | None = None
    severity: str = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What both sides say, and what follows."""

    name: str
    book: Book
    facts: Facts
    expected: Sequence[Expected] = ()


def as_expected(item: Found) -> Expected:
    """A difference that was found, in a scenario's words."""
    return Expected(
        kind=str(item.kind),
        subject=item.subject,
        local=_text(item.local),
        broker=_text(item.broker),
        value=None if item.value is None else _text(item.value),
        explained=item.explanation,
        severity=str(severity(item.kind, item.value, Limits())),
    )


def of(
    book: Held | None = None,
    orders: Sequence[BookOrder] = (),
    cash: str | None = None,
    **more: Any,
) -> Book:
    """Our side."""
    positions = {
        symbol: BookPosition(qty=_number(held[0]), average_price=_price(held, 1))
        for symbol, held in (book or {}).items()
    }
    return Book(positions=positions, orders=orders, cash=_amount(cash), **more)


def says(
    held: Held | None = None,
    orders: Sequence[BrokerOrder] = (),
    cash: str | None = None,
    **more: Any,
) -> Facts:
    """The broker's side."""
    positions = {
        symbol: BrokerPosition(
            qty=_number(each[0]), average_price=_price(each, 1), price=_price(each, 2)
        )
        for symbol, each in (held or {}).items()
    }
    return Facts(positions=positions, orders=orders, cash=_amount(cash), **more)


def ours(name: str, **changes: Any) -> BookOrder:
    """An order of our book: a buy of 10 KO, working, that the broker calls by the same name."""
    given = {
        "symbol": "KO",
        "side": "buy",
        "qty": "10",
        "filled_qty": "0",
        "status": "new",
        "is_open": True,
        "broker_order_id": name,
        **changes,
    }
    given["qty"], given["filled_qty"] = Decimal(given["qty"]), Decimal(given["filled_qty"])
    return BookOrder(id=uuid5(NAMESPACE_OID, name), client_order_id=f"c-{name}", **given)


def theirs(name: str, **changes: Any) -> BrokerOrder:
    """The same order as the broker lists it."""
    given = {
        "symbol": "KO",
        "side": "buy",
        "qty": "10",
        "filled_qty": "0",
        "status": "new",
        "price": "60",
        "client_order_id": f"c-{name}",
        **changes,
    }
    for key in ("qty", "filled_qty", "price"):
        given[key] = None if given[key] is None else Decimal(given[key])
    return BrokerOrder(broker_order_id=name, **given)


def traded(*trades: tuple[str, str]) -> Sequence[OutsideTrade]:
    """Trades outside, oldest first, each with signed shares and price, a minute apart."""
    return [
        OutsideTrade(
            qty=Decimal(qty),
            price=Decimal(price),
            occurred_at=_NOON + timedelta(minutes=number),
            broker_order_id=f"app-{number}",
        )
        for number, (qty, price) in enumerate(trades)
    ]


def by_trades(
    qty: str, price: str, *places: int, code: str = "external_trades"
) -> Mapping[str, Any]:
    """Explained by the trades at these places of what `traded` made."""
    return {
        "code": code,
        "qty": qty,
        "price": price,
        "count": len(places),
        "last_at": (_NOON + timedelta(minutes=places[-1])).isoformat(),
        "orders": [f"app-{place}" for place in places],
    }


def by_split(ratio: str, *, told: bool = False) -> Mapping[str, Any]:
    return {"code": "split", "ratio": ratio, "told": told}


def by_fill(name: str, qty: str) -> Mapping[str, Any]:
    """Explained by a fill of an order of ours that only one side may know of."""
    return {"code": "fill_on_its_way", "client_order_id": f"c-{name}", "qty": qty}


def action(kind: str, qty: str) -> Sequence[CorporateAction]:
    return [CorporateAction(kind=kind, qty=Decimal(qty))]


def power(buying_power: str, **changes: str) -> Baseline:
    """Figures of an account with $100,000 of equity and nothing in the market."""
    given = {"equity": "100000", "gross": "0", "reserved": "0", "multiplier": "4", **changes}
    numbers = {name: Decimal(value) for name, value in given.items()}
    return Baseline(buying_power=Decimal(buying_power), **numbers)


def many(count: int, qty: str = "10") -> dict[str, tuple[str | None, ...]]:
    """So many positions, S01 and on, at $50."""
    return {f"S{number:02}": (qty, "50") for number in range(1, count + 1)}


def in_mass(found: int, of: int, hint: str, *symbols: str) -> Mapping[str, Any]:
    return {"code": "mass", "positions": found, "of": of, "symbols": list(symbols), "hint": hint}


def _number(text: str | None) -> Decimal:
    assert text is not None, "shares are always known"
    return Decimal(text)


def _price(held: tuple[str | None, ...], place: int) -> Decimal | None:
    return _amount(held[place]) if len(held) > place else None


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
