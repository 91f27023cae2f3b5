"""Positions as the sum of their ledger: worked examples of average cost."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from ordinis.accounts.models import BrokerAccount
from positions.ledger import Holding, after, book, lock_position
from positions.models import Instrument, LedgerEntry, Position


@pytest.mark.parametrize(
    ("steps", "qty", "average"),
    [
        ([("100", "10")], "100", "10"),
        ([("100", "10"), ("100", "12")], "200", "11"),
        ([("100", "10"), ("-40", "15")], "60", "10"),
        ([("100", "10"), ("-100", "15")], "0", None),
        ([("100", "10"), ("-150", "15")], "-50", "15"),
        ([("-50", "15"), ("-50", "17")], "-100", "16"),
        ([("-50", "15"), ("80", "14")], "30", "14"),
    ],
)
def test_average_cost(steps: list[tuple[str, str]], qty: str, average: str | None) -> None:
    held = Holding(Decimal(0), None)
    for shares, price in steps:
        held = after(held, Decimal(shares), Decimal(price))

    assert held == Holding(Decimal(qty), None if average is None else Decimal(average))


_STEPS = st.lists(st.tuples(st.integers(-100, 100).filter(bool), st.integers(1, 500)), max_size=12)


@given(steps=_STEPS)
def test_the_average_stays_between_the_prices_paid(steps: list[tuple[int, int]]) -> None:
    held = Holding(Decimal(0), None)
    for qty, price in steps:
        held = after(held, Decimal(qty), Decimal(price))

    assert held.qty == sum(qty for qty, _ in steps)
    if held.average_price is not None:
        prices = [price for _, price in steps]
        assert min(prices) <= held.average_price <= max(prices)
    assert (held.average_price is None) == (held.qty == 0)


@pytest.mark.django_db
def test_the_same_cause_is_booked_once(account: BrokerAccount) -> None:
    def once() -> None:
        with transaction.atomic():
            book(
                lock_position(account.pk, "KO"),
                kind=LedgerEntry.Kind.FILL,
                cause="order/e1",
                qty=Decimal(5),
                price=Decimal(60),
                occurred_at=datetime.now(UTC),
            )

    once()
    with pytest.raises(IntegrityError, match="ledger_cause_booked_once"):
        once()

    assert Position.objects.get().qty == 5


@pytest.mark.django_db
def test_the_sp_500_and_the_symbols_of_the_incidents_are_shipped_with_their_sectors() -> None:
    sectors = dict(Instrument.objects.values_list("symbol", "sector"))

    assert len(sectors) == 510
    assert sectors["TSLA"] == "Consumer Discretionary"
    assert sectors["OKE"] == sectors["ET"] == sectors["EPD"] == "Energy"
    assert sectors["FNGU"] == sectors["TECL"] == "ETF: leveraged"
