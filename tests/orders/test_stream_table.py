"""Every status of an order meets every event of the stream (ALPACA.md 1.1 and 1.3)."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction

from orders import lifecycle, statuses, sync
from orders.lifecycle import Origin, Source
from orders.models import Fill, Order
from ordinis.accounts.models import Strategy
from ordinis.alerts.models import Alert
from ordinis.broker.parsing import parse_trade_update
from ordinis.broker.port import BROKER_STATUSES
from ordinis.verify import violations
from positions.models import LedgerEntry, Position

# An order that the broker made before ours was thought of would be another one.
START = datetime(2099, 11, 20, 15, 0, tzinfo=UTC)
UNHEARD_OF = "quantum_hold"
STATUSES = (*sorted(BROKER_STATUSES), UNHEARD_OF)
SAME = ""  # the event leaves the order's status as it is


@dataclass(frozen=True)
class Event:
    """What a message says: the event, the order's status in it, and shares of an execution."""

    name: str
    status: str
    shares: int | None = None


EVENTS = (
    Event("accepted", "accepted"),
    Event("pending_new", "pending_new"),
    Event("new", "new"),
    Event("partial_fill", "partially_filled", shares=10),
    Event("fill", "filled", shares=60),
    Event("canceled", "canceled"),
    Event("expired", "expired"),
    Event("done_for_day", "done_for_day"),
    Event("replaced", "replaced"),
    Event("rejected", "rejected"),
    Event("pending_cancel", "pending_cancel"),
    Event("pending_replace", "pending_replace"),
    Event("held", "held"),
    Event("stopped", "stopped"),
    Event("suspended", "suspended"),
    Event("calculated", "calculated"),
    Event("order_cancel_rejected", "new"),
    Event("order_replace_rejected", "new"),
    Event("trade_bust", SAME, shares=-10),
    Event("trade_correct", SAME, shares=10),
    Event("restated", SAME),
    Event("teleported", UNHEARD_OF),
)
# What a fill can win against, although it was reported first.
OVERTAKEN_BY_A_FILL = {"canceled", "expired", "replaced"}


def expected_status(before: str, event: Event) -> str:
    after = event.status or before
    if before == "filled":
        return before
    if before in OVERTAKEN_BY_A_FILL:
        return "filled" if after == "filled" else before
    return after  # also from rejected: the order turns out to live, or to have ended otherwise


def filled_in(status: str) -> int:
    return {"partially_filled": 40, "filled": 100}.get(status, 0)


def expected_filled(before: str, event: Event) -> int:
    """The fill event says that all has filled, whatever was told before it."""
    if event.name == "fill":
        return 100
    had = filled_in(before)
    return min(had + 10, 100) if event.name == "partial_fill" else had


def message(order: Order, event: Event, *, at: int, status: str, filled: int) -> dict[str, Any]:
    moment = (START + timedelta(seconds=at)).isoformat()
    data: dict[str, Any] = {
        "at": moment,
        "event_id": f"{order.client_order_id}/{at}",
        "event": event.name,
        "timestamp": moment,
        "order": {
            "id": f"broker-{order.client_order_id}",
            "client_order_id": order.client_order_id,
            "created_at": START.isoformat(),
            "updated_at": moment,
            "submitted_at": None,
            "symbol": order.symbol,
            "asset_class": "us_equity",
            "notional": None,
            "qty": "100",
            "filled_qty": str(filled),
            "filled_avg_price": "70" if filled else None,
            "order_class": "",
            "order_type": "limit",
            "type": "limit",
            "side": "buy",
            "time_in_force": "day",
            "limit_price": "70",
            "stop_price": None,
            "status": status,
            "legs": None,
        },
    }
    if event.shares is not None:
        data |= {"execution_id": f"{order.pk}/{event.name}", "price": "70"}
        data |= {"qty": str(event.shares), "position_qty": "100"}
    if event.name in ("trade_bust", "trade_correct"):
        data["previous_execution_id"] = f"{order.pk}/earlier"
    return {"stream": "trade_updates", "data": data}


def intent(strategy: Strategy, client_order_id: str) -> Order:
    order = Order(
        id=uuid4(),
        account=strategy.account,
        strategy=strategy,
        client_order_id=client_order_id,
        fingerprint="f" * 64,
        symbol="OKE",
        side="buy",
        qty=Decimal(100),
        type="limit",
        time_in_force="day",
        limit_price=Decimal(70),
        correlation_id="table",
    )
    with transaction.atomic():
        lifecycle.record_intent(order, statuses.SUBMITTING, Origin(Source.API, "strategy rsi"))
    return order


def told(order: Order, body: dict[str, Any]) -> Order:
    report = parse_trade_update(json.loads(json.dumps(body)))
    taken = sync.take_in(order.account, report, Source.STREAM)
    assert taken is not None
    return taken


@pytest.mark.django_db
@pytest.mark.parametrize("before", STATUSES)
def test_an_order_of_each_status_takes_each_event_by_the_rules(
    strategy: Strategy, before: str
) -> None:
    first = Event("restated", before)
    found, wanted = {}, {}
    for event in EVENTS:
        order = intent(strategy, f"{before}-{event.name}")
        told(order, message(order, first, at=0, status=before, filled=filled_in(before)))
        after, filled = event.status or before, expected_filled(before, event)
        body = message(order, event, at=1, status=after, filled=filled)
        for _ in range(2):  # and once more, which changes nothing
            order = told(order, body)
        found[event.name] = (order.status, order.filled_qty)
        wanted[event.name] = (expected_status(before, event), filled)

    assert found == wanted
    assert not Alert.objects.filter(code="report_not_taken_in").exists()
    total = sum(filled for _, filled in wanted.values())
    assert sum(Fill.objects.values_list("qty", flat=True)) == total
    assert sum(LedgerEntry.objects.values_list("qty", flat=True)) == total
    assert [p.qty for p in Position.objects.all()] == ([total] if total else [])
    assert list(violations()) == []


@pytest.mark.django_db
@pytest.mark.parametrize("before", ["canceled", "filled", "rejected", UNHEARD_OF])
def test_what_a_person_must_hear_of_raises_an_incident(strategy: Strategy, before: str) -> None:
    order = intent(strategy, "odd")
    shares = filled_in(before)
    told(order, message(order, Event("new", before), at=0, status=before, filled=shares))
    told(order, message(order, EVENTS[4], at=1, status="filled", filled=100))

    codes = {"canceled": "late_report", "rejected": "late_report", UNHEARD_OF: "unknown_status"}
    assert list(Alert.objects.values_list("code", flat=True)) == (
        [codes[before]] if before in codes else []
    )


@pytest.mark.parametrize("after", STATUSES)
def test_each_event_is_read_with_each_status_in_it(after: str) -> None:
    """The venue need not agree with itself: the status and the event are told side by side."""
    order = Order(client_order_id="odd", symbol="OKE")
    for event in EVENTS:
        report = parse_trade_update(message(order, event, at=0, status=after, filled=10))

        assert (report.status, report.filled_qty) == (after, 10)
        assert (report.execution is not None) == (event.name in ("fill", "partial_fill"))
