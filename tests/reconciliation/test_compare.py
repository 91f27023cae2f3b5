"""The comparison is pure: the same facts give the same differences, and correcting ends them."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from reconciliation.compare import compare

_SHARES = st.decimals(-1000, 1000, places=9, allow_nan=False, allow_infinity=False)
_HOLDINGS = st.dictionaries(st.sampled_from(["AAPL", "ET", "OKE", "TSLA"]), _SHARES)


def test_each_kind_of_difference_is_told_apart() -> None:
    book = {"A": Decimal(5), "B": Decimal(5), "C": Decimal(0), "D": Decimal(5)}
    broker = {"B": Decimal(4), "C": Decimal(3), "D": Decimal(5)}

    found = {(item.symbol, item.kind.value, item.difference) for item in compare(book, broker)}

    assert found == {("A", "zombie", -5), ("B", "quantity", -1), ("C", "orphan", 3)}


def test_one_unit_in_the_last_decimal_is_a_difference() -> None:
    (item,) = compare({"FNGU": Decimal("1591.166892")}, {"FNGU": Decimal("1591.166892001")})

    assert item.difference == Decimal("0.000000001")


@given(book=_HOLDINGS, broker=_HOLDINGS)
def test_correcting_every_difference_leaves_none(
    book: dict[str, Decimal], broker: dict[str, Decimal]
) -> None:
    found = compare(book, broker)

    corrected = dict(book)
    for item in found:
        corrected[item.symbol] = corrected.get(item.symbol, Decimal(0)) + item.difference

    assert compare(book, broker) == found
    assert compare(corrected, broker) == []
