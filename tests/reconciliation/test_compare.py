"""What holds of every comparison, whatever the two sides say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciliation.compare import compare
from reconciliation.facts import (
    ZERO,
    Book,
    BookOrder,
    BookPosition,
    BrokerOrder,
    BrokerPosition,
    Facts,
    Found,
    Tolerances,
)
from reconciliation.models import OF_POSITIONS, Kind
from tests.reconciliation.scenarios import action, ours, theirs, traded

_SYMBOLS = ("AAPL", "ET", "FNGU", "KO", "OKE", "PEP", "TSLA", "XOM")
_SHARES = st.one_of(
    st.integers(-20, 20).map(Decimal),
    st.decimals(-1000, 1000, places=9, allow_nan=False, allow_infinity=False),
)
_PRICES = st.one_of(st.none(), st.integers(1, 100).map(Decimal))
_STATUSES = st.sampled_from(["new", "partially_filled", "unresolved", "canceled"])
_ALONE = Tolerances(mass_least=1000)


@st.composite
def _sides(draw: st.DrawFn) -> tuple[Book, Facts]:
    symbols = st.sampled_from(_SYMBOLS)
    held = draw(st.dictionaries(symbols, st.tuples(_SHARES, _PRICES)))
    said = draw(st.dictionaries(symbols, st.tuples(_SHARES, _PRICES, _PRICES)))
    # Alike as often as not: of random books everything differs.
    for symbol in draw(st.sets(symbols)) & held.keys():
        said[symbol] = (*held[symbol], None)
    booked, listed = [], []
    for number in range(draw(st.integers(0, 4))):
        side, symbol = draw(st.sampled_from(["buy", "sell"])), draw(symbols)
        filled, status = str(draw(st.integers(0, 10))), draw(_STATUSES)
        known = draw(st.booleans())
        if known:
            order = ours(f"o{number}", side=side, symbol=symbol, filled_qty=filled, status=status)
            booked.append(replace(order, is_open=status != "canceled"))
        if not known or draw(st.booleans()):
            listed.append(theirs(f"o{number}", side=side, symbol=symbol, filled_qty=filled))
    trades = draw(
        st.dictionaries(
            symbols,
            st.lists(st.tuples(st.integers(-20, 20).filter(bool), st.integers(1, 99)), max_size=3),
        )
    )
    actions = draw(st.dictionaries(symbols, st.integers(-9, 9).filter(bool)))
    book = Book(
        positions={
            symbol: BookPosition(qty=qty, average_price=average)
            for symbol, (qty, average) in held.items()
        },
        orders=booked,
        cash=draw(st.none() | st.integers(0, 5).map(Decimal)),
        known=frozenset(f"position/{symbol}" for symbol in draw(st.sets(symbols))),
    )
    facts = Facts(
        positions={
            symbol: BrokerPosition(qty=qty, average_price=average, price=price)
            for symbol, (qty, average, price) in said.items()
        },
        orders=listed,
        missing=frozenset(f"o{number}" for number in draw(st.sets(st.integers(0, 3)))),
        cash=draw(st.none() | st.integers(0, 5).map(Decimal)),
        trades={
            symbol: traded(*((str(qty), str(price)) for qty, price in each))
            for symbol, each in trades.items()
        },
        actions={symbol: action("SPIN", str(qty)) for symbol, qty in actions.items()},
    )
    return book, facts


@settings(max_examples=50)
@given(sides=_sides())
def test_the_same_facts_give_the_same_differences(sides: tuple[Book, Facts]) -> None:
    assert compare(*sides) == compare(*sides)


@settings(max_examples=50)
@given(sides=_sides(), seed=st.integers(0, 1000))
def test_the_order_of_what_is_given_does_not_matter(sides: tuple[Book, Facts], seed: int) -> None:
    book, facts = sides
    random = Random(seed)

    def shuffled(given: Any) -> Any:
        items = list(given.items() if isinstance(given, Mapping) else given)
        random.shuffle(items)
        return dict(items) if isinstance(given, Mapping) else items

    mixed_book = replace(book, positions=shuffled(book.positions), orders=shuffled(book.orders))
    mixed_facts = replace(
        facts,
        positions=shuffled(facts.positions),
        orders=shuffled(facts.orders),
        trades=shuffled(facts.trades),
        actions=shuffled(facts.actions),
    )

    assert compare(mixed_book, mixed_facts) == compare(book, facts)


def test_of_two_orders_that_may_explain_it_the_same_one_is_named_in_whatever_order() -> None:
    orders = [ours("o1"), ours("o2")]
    facts = Facts(positions={"KO": BrokerPosition(qty=Decimal(3))})

    named = [compare(Book(orders=given), facts)[0].explanation for given in (orders, orders[::-1])]

    assert named[0] == named[1]
    assert named[0] == {"code": "fill_on_its_way", "client_order_id": "c-o1", "qty": "3"}


@settings(max_examples=50)
@given(sides=_sides())
def test_longs_and_shorts_are_treated_alike(sides: tuple[Book, Facts]) -> None:
    book, facts = replace(sides[0], cash=None), replace(sides[1], cash=None)

    mirrored = compare(_mirrored(book, _mirrored_book_order), _mirrored_facts(facts))

    assert [_seen(item, -1) for item in mirrored] == [
        _seen(item, 1) for item in compare(book, facts)
    ]


@settings(max_examples=50)
@given(sides=_sides())
def test_taking_over_every_difference_leaves_none_and_the_second_pass_is_empty(
    sides: tuple[Book, Facts],
) -> None:
    book, facts = sides
    facts = replace(facts, orders=(), missing=frozenset())

    corrected = _corrected(book, facts, compare(book, facts))

    left = compare(corrected, facts)
    # Cash is first judged when the shares agree.
    assert all(item.kind == Kind.CASH for item in left)
    assert compare(_corrected(corrected, facts, left), facts) == []


@settings(max_examples=50)
@given(sides=_sides())
def test_a_mass_never_stands_for_less_than_five_nor_for_the_smaller_part_and_hides_nothing(
    sides: tuple[Book, Facts],
) -> None:
    book, facts = sides
    singly = [i for i in compare(book, facts, _ALONE) if i.subject != "account/cash"]

    found = compare(book, facts)

    if found and found[0].kind == Kind.MASS:
        mass = found[0]
        counted = mass.local - mass.broker
        assert counted >= 5
        assert 2 * counted > mass.local
        shown = [*mass.members, *found[1:]]
        assert sorted(shown, key=lambda item: item.subject) == sorted(
            singly, key=lambda item: item.subject
        )
        assert all(item.subject not in book.known for item in mass.members)
    else:
        assert [item for item in found if item.subject != "account/cash"] == singly


@settings(max_examples=50)
@given(sides=_sides())
def test_there_is_one_difference_a_subject(sides: tuple[Book, Facts]) -> None:
    subjects = [item.subject for item in compare(*sides)]

    assert len(set(subjects)) == len(subjects)


def _mirrored_book_order(order: BookOrder) -> BookOrder:
    return replace(order, side="sell" if order.side == "buy" else "buy")


def _mirrored_order(order: BrokerOrder) -> BrokerOrder:
    return replace(order, side="sell" if order.side == "buy" else "buy")


def _mirrored(book: Book, turn: Callable[[BookOrder], BookOrder]) -> Book:
    return replace(
        book,
        positions={s: replace(each, qty=-each.qty) for s, each in book.positions.items()},
        orders=[turn(order) for order in book.orders],
    )


def _mirrored_facts(facts: Facts) -> Facts:
    return replace(
        facts,
        positions={s: replace(each, qty=-each.qty) for s, each in facts.positions.items()},
        orders=[_mirrored_order(order) for order in facts.orders],
        trades={s: _negated(each) for s, each in facts.trades.items()},
        actions={s: _negated(each) for s, each in facts.actions.items()},
    )


def _negated(items: Sequence[Any]) -> list[Any]:
    return [replace(item, qty=-item.qty) for item in items]


def _seen(item: Found, sign: int) -> tuple[Any, ...]:
    shares = (item.kind in OF_POSITIONS and item.kind != Kind.AVERAGE_PRICE) or (
        item.kind == Kind.ORDER_EXTERNAL
    )
    turn = sign if shares else 1
    code = item.explanation and item.explanation["code"]
    figures = (item.local * turn, item.broker * turn, item.value, item.trade_price)
    return (item.kind, item.subject, *figures, code, *(_seen(each, sign) for each in item.members))


def _corrected(book: Book, facts: Facts, found: list[Found]) -> Book:
    """The book once every difference was taken over; a mass by what it stands for."""
    single = [each for item in found for each in (item.members or (item,))]
    positions, cash = dict(book.positions), book.cash
    for item in single:
        if item.kind == Kind.CASH:
            cash = item.broker
            continue
        said = facts.positions.get(item.symbol, BrokerPosition(qty=ZERO))
        positions[item.symbol] = BookPosition(qty=said.qty, average_price=said.average_price)
    return replace(book, positions=positions, cash=cash)
