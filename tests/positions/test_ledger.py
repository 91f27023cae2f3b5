"""Positions as the sum of their ledger: worked examples of average cost."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from ordinis.accounts.models import BrokerAccount
from positions.ledger import (
    Holding,
    after,
    after_split,
    book,
    book_cash,
    cash_of,
    lock_position,
    realized,
)
from positions.models import CashEntry, Instrument, LedgerEntry, Position

Kind = LedgerEntry.Kind
NOON = datetime(2026, 1, 20, 17, tzinfo=UTC)


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


@pytest.mark.parametrize(
    ("held", "average", "qty", "price", "profit"),
    [
        pytest.param("0", None, "10", "60", "0", id="an opening earns nothing"),
        pytest.param("10", "50", "5", "60", "0", id="what adds earns nothing"),
        pytest.param("10", "50", "-4", "60", "40", id="a sale earns what is over its cost"),
        pytest.param("10", "50", "-4", "45", "-20", id="a sale below its cost loses"),
        pytest.param("10", "50", "-10", "60", "100", id="a sale of all"),
        pytest.param("10", "50", "-30", "60", "100", id="turning round earns on what was held"),
        pytest.param("-10", "50", "-5", "60", "0", id="a larger short earns nothing"),
        pytest.param("-10", "50", "4", "45", "20", id="covering below its price earns"),
        pytest.param("-10", "50", "4", "60", "-40", id="covering above its price loses"),
        pytest.param("-10", "50", "30", "45", "50", id="a short turned round"),
        pytest.param("10", None, "-4", "60", "0", id="of an unknown cost nothing is known"),
        pytest.param("10", "50", "-4", None, "0", id="at an unknown price nothing is known"),
        pytest.param("10", "50", "0", "60", "0", id="what moves no shares earns nothing"),
        pytest.param("3", "0.333333333", "-1", "0.333333334", "0.000000001", id="a billionth"),
    ],
)
def test_realised_profit(
    held: str, average: str | None, qty: str, price: str | None, profit: str
) -> None:
    before = Holding(Decimal(held), None if average is None else Decimal(average))

    earned = realized(before, Decimal(qty), None if price is None else Decimal(price))

    assert earned == Decimal(profit)


@given(steps=_STEPS)
def test_what_trades_paid_and_brought_in_is_profit_and_the_cost_of_what_is_left(
    steps: list[tuple[int, int]],
) -> None:
    held, profit, paid = Holding(Decimal(0), None), Decimal(0), Decimal(0)
    for qty, price in steps:
        profit += realized(held, Decimal(qty), Decimal(price))
        paid += qty * price
        held = after(held, Decimal(qty), Decimal(price))

    cost = held.qty * (held.average_price or 0)
    assert abs(profit - (cost - paid)) < Decimal("0.00001")


@pytest.mark.parametrize(
    ("held", "average", "given_qty", "qty_after", "average_after"),
    [
        pytest.param("10", "60", "10", "20", "30", id="2:1"),
        pytest.param("10", "60", "5", "15", "40", id="3:2"),
        pytest.param("100", "6", "-90", "10", "60", id="1:10"),
        pytest.param("-100", "6", "90", "-10", "60", id="1:10 of a short"),
        pytest.param("3", "1", "4", "7", "0.428571429", id="rounded to a billionth"),
        pytest.param("10", None, "10", "20", None, id="of an unknown cost"),
        pytest.param("1", "60", "-1", "0", None, id="all of it paid out"),
    ],
)
def test_a_split_leaves_the_cost_as_it_was(
    held: str, average: str | None, given_qty: str, qty_after: str, average_after: str | None
) -> None:
    before = Holding(Decimal(held), None if average is None else Decimal(average))

    left = after_split(before, Decimal(given_qty))

    expected = None if average_after is None else Decimal(average_after)
    assert left == Holding(Decimal(qty_after), expected)


def _book(account: BrokerAccount, kind: Kind, qty: str, price: str | None, **more: Any) -> Position:
    with transaction.atomic():
        position = lock_position(account.pk, "KO")
        book(
            position,
            kind=kind,
            cause=f"test/{position.ledger_version}",
            qty=Decimal(qty),
            price=None if price is None else Decimal(price),
            occurred_at=NOON,
            **more,
        )
    return Position.objects.get(pk=position.pk)


@pytest.mark.django_db
def test_only_fills_pay_and_every_sale_earns(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")
    _book(account, Kind.FILL, "-40", "65")
    _book(account, Kind.CORRECTION, "-10", "66")
    position = _book(account, Kind.FILL, "20", "70")

    assert (position.qty, position.realized_profit) == (70, 260)
    assert position.cash_flow == 40 * 65 - 20 * 70
    profits = LedgerEntry.objects.order_by("seq").values_list("realized_profit", flat=True)
    assert list(profits) == [0, 200, 60, 0]


@pytest.mark.django_db
def test_a_split_earns_nothing_pays_nothing_and_keeps_the_cost(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")
    position = _book(account, Kind.SPLIT, "100", None)

    assert (position.qty, position.average_price) == (200, 30)
    assert (position.realized_profit, position.cash_flow) == (0, 0)
    entry = LedgerEntry.objects.get(kind="split")
    assert (entry.qty_after, entry.average_price_after, entry.seq) == (200, 30, 2)


@pytest.mark.django_db
def test_shares_of_a_corporate_action_come_without_a_price_and_earn_nothing(
    account: BrokerAccount,
) -> None:
    _book(account, Kind.OPENING, "100", "60")
    position = _book(account, Kind.CORPORATE_ACTION, "-30", None)

    assert (position.qty, position.average_price, position.realized_profit) == (70, 60, 0)


@pytest.mark.django_db
def test_a_correction_of_the_average_alone_moves_no_shares(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")
    position = _book(account, Kind.CORRECTION, "0", None, average_price=Decimal("61.5"))

    assert (position.qty, position.average_price, position.ledger_version) == (
        100,
        Decimal("61.5"),
        2,
    )
    assert (position.realized_profit, position.cash_flow) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("kind", [Kind.FILL, Kind.SPLIT, Kind.CORPORATE_ACTION, Kind.OPENING])
def test_nothing_but_a_correction_moves_no_shares(account: BrokerAccount, kind: Kind) -> None:
    _book(account, Kind.OPENING, "100", "60")

    with pytest.raises(IntegrityError, match="ledger_entry_moves_something"):
        _book(account, kind, "0", "60")

    assert Position.objects.get().ledger_version == 1


@pytest.mark.django_db
def test_a_position_closes_with_its_reason_and_opens_without_one(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")
    outside = Position.ClosedReason.EXTERNALLY

    closed = _book(account, Kind.CORRECTION, "-100", "65", closed_reason=outside)
    assert (closed.status, closed.closed_reason, closed.average_price) == (
        "closed",
        "closed_externally",
        None,
    )
    opened = _book(account, Kind.FILL, "-5", "64")

    assert (opened.status, opened.closed_reason, opened.average_price) == ("open", "", 64)
    assert opened.realized_profit == 500


@pytest.mark.django_db
def test_the_brokers_average_does_not_survive_a_position(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")

    position = _book(account, Kind.CORRECTION, "-100", None, average_price=Decimal(7))

    assert (position.qty, position.average_price) == (0, None)


@pytest.mark.django_db
def test_the_cash_of_the_book_is_its_entries_and_what_fills_paid(account: BrokerAccount) -> None:
    assert cash_of(account.pk) is None
    _cash(account, CashEntry.Kind.OPENING, "opening", "1000")
    _cash(account, CashEntry.Kind.ACTIVITY, "fee-1", "-12.34")
    _book(account, Kind.OPENING, "100", "60")
    _book(account, Kind.FILL, "-1", "65.5")

    assert cash_of(account.pk) == Decimal("1053.16")
    other = BrokerAccount.objects.create(name="other", broker="simulator", mode="simulated")
    assert cash_of(other.pk) is None


@pytest.mark.django_db
def test_a_cause_moves_cash_once(account: BrokerAccount) -> None:
    _cash(account, CashEntry.Kind.ACTIVITY, "fee-1", "-12.34")

    with pytest.raises(IntegrityError, match="cash_cause_booked_once"):
        _cash(account, CashEntry.Kind.ACTIVITY, "fee-1", "-12.34")

    assert cash_of(account.pk) == Decimal("-12.34")


@pytest.mark.django_db
def test_entries_are_neither_changed_nor_deleted(account: BrokerAccount) -> None:
    _book(account, Kind.OPENING, "100", "60")
    _cash(account, CashEntry.Kind.OPENING, "opening", "1000")

    for rows, change in (
        (LedgerEntry.objects.all(), {"qty": 1}),
        (CashEntry.objects.all(), {"amount": 1}),
    ):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            rows.update(**change)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            rows.delete()

    assert (LedgerEntry.objects.get().qty, CashEntry.objects.get().amount) == (100, 1000)


def _cash(account: BrokerAccount, kind: CashEntry.Kind, cause: str, amount: str) -> None:
    with transaction.atomic():
        book_cash(account, kind=kind, cause=cause, amount=Decimal(amount), occurred_at=NOON)


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
