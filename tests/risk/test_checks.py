"""The checks: each on its limit, one step under, one step over, and with broken input. Pure."""

from dataclasses import replace
from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pytest

from ordinis.broker.port import AccountReport, AssetReport
from risk import exchange
from risk.checks import Context, Finding, Intent, Opposite, evaluate
from risk.commitments import Committed
from risk.exposure import Worth
from risk.limits import Limits
from risk.states import HALTED, REDUCING, Reason, TradingState

NAN, INFINITE = Decimal("NaN"), Decimal("Infinity")
# Wide: each test sets the one limit that it is about.
WIDE = Limits(
    max_positions=1000,
    max_position_pct=Decimal(600),
    max_exposure_pct=Decimal(600),
    max_sector_pct=Decimal(600),
    max_orders_per_minute=1000,
    account_orders_per_minute=1000,
)
DAY = datetime(2026, 11, 20, 12, 0, tzinfo=exchange.NEW_YORK)


def at(hour: int, minute: int = 0) -> datetime:
    return DAY.replace(hour=hour, minute=minute)


def account(**changes: Any) -> AccountReport:
    figures = {"equity": Decimal(100_000), "cash": Decimal(100_000)}
    return AccountReport(
        account_number="PA1",
        status="ACTIVE",
        trading_blocked=changes.pop("blocked", False),
        raw={},
        **{"buying_power": Decimal(400_000), **figures, **changes},
    )


def asset(**changes: Any) -> AssetReport:
    can = {"tradable": True, "fractionable": True, "shortable": True, "marginable": True}
    return AssetReport(
        symbol="KO", asset_class="us_equity", status="active", raw={}, **{**can, **changes}
    )


def context(**changes: Any) -> Context:
    """An account with $100,000 and nothing held, but for `changes`. `held` is in shares of KO, all
    of them free unless `free_qty` says otherwise."""
    held = Decimal(changes.pop("held", 0))
    values: dict[str, Any] = {
        "account": account(),
        "held_qty": held,
        "free_qty": held,
        "sectors": {"KO": "Consumer Staples"},
        "asset": asset(),
        "session": exchange.Session(
            kind="regular", day=DAY.date(), opens=at(9, 30), closes=at(16, 0)
        ),
        "local_time": DAY,
    }
    return Context(symbol="KO", **{**values, **changes})


def buy(qty: str, price: str = "10", **changes: Any) -> Intent:
    return _intent("buy", qty, price, **changes)


def sell(qty: str, price: str = "10", **changes: Any) -> Intent:
    return _intent("sell", qty, price, **changes)


def _intent(side: str, qty: str, price: str, **changes: Any) -> Intent:
    prices = {"worst_price": Decimal(price), "limit_price": Decimal(price)}
    return Intent(symbol="KO", side=side, qty=Decimal(qty), **{**prices, **changes})


def violations(intent: Intent, around: Context, limits: Limits = WIDE) -> list[Finding]:
    return [finding for finding in evaluate(intent, around, limits) if not finding.ok]


def codes(intent: Intent, around: Context, limits: Limits = WIDE) -> list[str]:
    return [finding.code for finding in violations(intent, around, limits)]


# --- money -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qty", "price", "passes"),
    [("99", "10", True), ("98", "10", True), ("1", "990.01", False), ("100", "10", False)],
)
def test_buying_power_less_the_buffer_of_1_pct_is_the_limit(
    qty: str, price: str, passes: bool
) -> None:
    expected = [] if passes else ["insufficient_buying_power"]

    assert codes(buy(qty, price), context(account=account(buying_power=Decimal(1000)))) == expected


def test_what_orders_on_their_way_commit_is_not_spent_again() -> None:
    around = context(
        account=account(buying_power=Decimal(1000)), committed=Committed(Decimal(400), {})
    )

    assert codes(buy("59"), around) == []
    assert codes(buy("60"), around) == ["insufficient_buying_power"]


def test_the_tecl_order_is_denied_with_what_it_needs_and_what_there_is() -> None:
    around = context(account=account(buying_power=Decimal("3432.62")))

    (violation,) = violations(buy("487", "108"), around)

    assert "needs $52,596.00, has $3,432.62" in violation.message
    assert violation.actual == 52_596


def test_negative_buying_power_lets_no_buy_pass() -> None:
    assert codes(buy("1", "1"), context(account=account(buying_power=Decimal(-50)))) == [
        "insufficient_buying_power"
    ]


@pytest.mark.parametrize(("qty", "passes"), [("49", True), ("49.5", True), ("50", False)])
def test_what_is_not_marginable_is_bought_with_cash_alone(qty: str, passes: bool) -> None:
    around = context(account=account(cash=Decimal(500)), asset=asset(marginable=False))

    assert (codes(buy(qty), around) == []) == passes


def test_the_brokers_own_figure_for_cash_is_used_where_it_gives_one() -> None:
    around = context(account=account(cash_buying_power=Decimal(100)), asset=asset(marginable=False))

    assert codes(buy("10"), around) == ["insufficient_buying_power"]


def test_a_replacement_needs_only_what_it_adds() -> None:
    more = buy("60", replaced_qty=Decimal(50), replaced_cost=Decimal(500))
    around = context(account=account(buying_power=Decimal(150)))

    assert codes(more, around) == []
    assert codes(replace(more, qty=Decimal(70)), around) == ["insufficient_buying_power"]


# --- shares ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("qty", "passes"), [("39", True), ("40", True), ("41", False)])
def test_a_sell_takes_no_more_than_is_free(qty: str, passes: bool) -> None:
    around = context(held="50", committed=Committed(Decimal(0), {"KO": Decimal(10)}))

    assert codes(sell(qty), around) == ([] if passes else ["insufficient_quantity"])


@pytest.mark.parametrize("held", ["0", "-5"])
def test_nothing_is_sold_short_unless_it_is_enabled(held: str) -> None:
    assert codes(sell("1"), context(held=held)) == ["insufficient_quantity"]


@pytest.mark.parametrize(("qty", "passes"), [("4", True), ("5", True), ("6", False)])
def test_a_buy_covers_no_more_than_is_short(qty: str, passes: bool) -> None:
    assert codes(buy(qty), context(held="-5")) == ([] if passes else ["insufficient_quantity"])


def test_what_covers_already_is_not_covered_twice() -> None:
    around = context(held="-5", committed=Committed(Decimal(0), {}, {"KO": Decimal(3)}))

    assert codes(buy("2"), around) == []
    assert codes(buy("3"), around) == ["insufficient_quantity"]


def test_what_closes_a_position_needs_no_money() -> None:
    broke = account(buying_power=Decimal(0), equity=Decimal(-10))

    assert codes(sell("50"), context(held="50", account=broke)) == []
    assert codes(buy("5"), context(held="-5", account=broke)) == []


# --- short sales -------------------------------------------------------------------------------

SHORT = replace(WIDE, allow_short=True)


def short(qty: str, **changes: Any) -> Intent:
    return sell(qty, **{"ask": Decimal(10), **changes})


def test_a_short_sale_passes_where_it_is_allowed_lent_and_paid_for() -> None:
    assert codes(short("10"), context(), SHORT) == []


@pytest.mark.parametrize(
    ("intent", "changes", "code"),
    [
        (short("0.5"), {}, "short_not_whole"),
        (short("1"), {"account": account(may_short=False)}, "account_may_not_short"),
        (short("1"), {"asset": asset(shortable=False)}, "not_shortable"),
        (short("1"), {"asset": None}, "not_shortable"),
        (sell("1"), {}, "reference_price_required"),
        (short("1"), {"account": account(equity=Decimal("1999.99"))}, "equity_too_small_to_short"),
        (short("39601", price="10"), {}, "insufficient_buying_power"),
    ],
)
def test_a_short_sale_is_denied_for(intent: Intent, changes: Any, code: str) -> None:
    assert codes(intent, context(**changes), SHORT) == [code]


def test_a_short_sale_passes_at_the_brokers_least_equity() -> None:
    assert codes(short("1"), context(account=account(equity=Decimal(2000))), SHORT) == []


def test_a_long_position_is_never_sold_through_zero() -> None:
    assert codes(short("6"), context(held="5"), SHORT) == ["insufficient_quantity"]


# --- the order's own size ----------------------------------------------------------------------


@pytest.mark.parametrize(("qty", "passes"), [("99", True), ("100", True), ("100.5", False)])
def test_max_order_qty_is_the_most_shares_of_one_order(qty: str, passes: bool) -> None:
    limits = replace(WIDE, max_order_qty=Decimal(100))

    assert codes(buy(qty), context(), limits) == ([] if passes else ["max_order_qty"])


@pytest.mark.parametrize(("price", "passes"), [("9.99", True), ("10", True), ("10.01", False)])
def test_max_order_notional_is_the_most_dollars_of_one_order(price: str, passes: bool) -> None:
    limits = replace(WIDE, max_order_notional=Decimal(1000))

    assert codes(buy("100", price), context(), limits) == ([] if passes else ["max_order_notional"])


def test_an_order_of_unknown_price_is_denied_where_its_dollars_are_limited() -> None:
    limits = replace(WIDE, max_order_notional=Decimal(1000))

    assert codes(sell("1", "0"), context(held="5"), limits) == []
    assert "max_order_notional" in codes(buy("1", "0"), context(), limits)


def test_what_closes_a_position_is_not_held_up_by_the_size_of_an_order() -> None:
    limits = replace(WIDE, max_order_qty=Decimal(1), max_order_notional=Decimal(1))

    assert codes(sell("50"), context(held="50"), limits) == []
    assert codes(buy("50"), context(held="-50"), limits) == []


@pytest.mark.parametrize(("price", "passes"), [("0.99", False), ("1", True), ("1.01", True)])
def test_the_broker_takes_no_order_below_a_dollar(price: str, passes: bool) -> None:
    assert codes(buy("1", price), context()) == ([] if passes else ["order_too_small"])


# --- positions and exposure --------------------------------------------------------------------


def of(dollars: str, *, symbol: str = "PEP") -> dict[str, Worth]:
    value = Decimal(dollars)
    return {symbol: Worth(max(value, Decimal(0)), max(-value, Decimal(0)), value)}


@pytest.mark.parametrize(("most", "passes"), [(4, True), (3, True), (2, False)])
def test_max_positions_counts_what_is_held_and_on_order(most: int, passes: bool) -> None:
    worth = {**of("100"), **of("-50", symbol="GE")}
    limits = replace(WIDE, max_positions=most)

    assert codes(buy("1"), context(worth=worth), limits) == ([] if passes else ["max_positions"])


def test_more_of_what_is_held_is_no_further_position() -> None:
    around = context(held="5", worth={**of("50", symbol="KO"), **of("100")})

    assert codes(buy("1"), around, replace(WIDE, max_positions=1)) == []


@pytest.mark.parametrize(
    ("qty", "passes"), [("499", True), ("500", True), ("500.000000001", False)]
)
def test_max_position_pct_is_a_share_of_equity(qty: str, passes: bool) -> None:
    limits = replace(WIDE, max_position_pct=Decimal(5))

    assert codes(buy(qty), context(), limits) == ([] if passes else ["max_position_pct"])


@pytest.mark.parametrize(("qty", "passes"), [("200", True), ("201", False)])
def test_what_is_held_and_on_order_counts_towards_the_position(qty: str, passes: bool) -> None:
    worth = {"KO": Worth(Decimal(3000), Decimal(0), Decimal(1000))}
    limits = replace(WIDE, max_position_pct=Decimal(5))

    around = context(held="100", worth=worth)

    assert codes(buy(qty), around, limits) == ([] if passes else ["max_position_pct"])


@pytest.mark.parametrize(
    ("dollars", "passes"), [("148999", True), ("149000", True), ("149001", False)]
)
@pytest.mark.parametrize("sign", ["", "-"])
def test_max_exposure_pct_sums_longs_and_shorts(dollars: str, passes: bool, sign: str) -> None:
    limits = replace(WIDE, max_exposure_pct=Decimal(150))

    expected = [] if passes else ["max_exposure_pct"]
    assert codes(buy("100"), context(worth=of(f"{sign}{dollars}")), limits) == expected


@pytest.mark.parametrize(
    ("dollars", "passes"), [("48999", True), ("49000", True), ("49001", False)]
)
def test_max_net_exposure_pct_is_longs_less_shorts(dollars: str, passes: bool) -> None:
    limits = replace(WIDE, max_net_exposure_pct=Decimal(20))
    worth = {**of(str(int(dollars) - 10_000)), **of("-20000", symbol="GE")}

    expected = [] if passes else ["max_net_exposure_pct"]
    around = context(worth={**worth, **of("-10000", symbol="F")})
    net = sum(each.held for each in around.worth.values())

    assert codes(buy("1", str(20_000 - net - (49_000 - int(dollars)))), around, limits) == expected


def test_working_orders_on_the_other_side_take_nothing_off_the_net() -> None:
    limits = replace(WIDE, max_net_exposure_pct=Decimal(20))
    worth = {
        "PEP": Worth(Decimal(20_000), Decimal(0), Decimal(0)),
        "GE": Worth(short=Decimal(5000)),
    }

    assert codes(buy("1"), context(worth=worth), limits) == ["max_net_exposure_pct"]


@pytest.mark.parametrize(
    ("dollars", "passes"), [("28999", True), ("29000", True), ("29001", False)]
)
def test_max_sector_pct_counts_what_is_in_the_same_sector(dollars: str, passes: bool) -> None:
    sectors = {"KO": "Consumer Staples", "PEP": "Consumer Staples", "GE": "Industrials"}
    worth = {**of(dollars), **of("90000", symbol="GE")}
    limits = replace(WIDE, max_sector_pct=Decimal(30))

    expected = [] if passes else ["max_sector_pct"]
    assert codes(buy("100"), context(worth=worth, sectors=sectors), limits) == expected


def test_unknown_is_a_sector_of_its_own() -> None:
    around = context(worth=of("29001"), sectors={"KO": "Unknown", "PEP": "Unknown"})

    (violation,) = violations(buy("100"), around, replace(WIDE, max_sector_pct=Decimal(30)))

    assert violation.code == "max_sector_pct"
    assert "sector Unknown" in violation.message


def test_what_reduces_passes_where_every_limit_is_broken() -> None:
    tight = Limits(
        max_positions=0,
        max_position_pct=Decimal(0),
        max_exposure_pct=Decimal(0),
        max_net_exposure_pct=Decimal(0),
        max_sector_pct=Decimal(0),
        blocked_symbols=frozenset({"KO"}),
        allowed_sessions=frozenset(),
    )
    worth = {**of("90000", symbol="KO"), **of("90000")}

    assert codes(sell("50"), context(held="50", worth=worth), tight) == []


@pytest.mark.parametrize("equity", ["0", "-1"])
def test_without_equity_nothing_may_be_added(equity: str) -> None:
    found = codes(buy("1"), context(account=account(equity=Decimal(equity))))

    assert found == ["max_position_pct", "max_exposure_pct", "max_sector_pct"]


def test_an_order_beyond_all_measure_is_denied_by_a_small_account() -> None:
    found = codes(
        buy("99999999999", "99999999999"), context(account=account(equity=Decimal("0.5")))
    )

    assert "max_position_pct" in found


# --- rates, prices, symbols, hours -------------------------------------------------------------


@pytest.mark.parametrize(("sent", "passes"), [(58, True), (59, True), (60, False)])
@pytest.mark.parametrize("whose", ["strategy_orders", "account_orders"])
def test_so_many_orders_a_minute_and_no_more(sent: int, passes: bool, whose: str) -> None:
    limits = replace(WIDE, max_orders_per_minute=60, account_orders_per_minute=60)

    found = codes(buy("1"), context(**{whose: sent}), limits)

    assert found == ([] if passes else ["max_orders_per_minute"])


@pytest.mark.parametrize(
    ("price", "passes"), [("100.49", True), ("100.50", True), ("100.51", False)]
)
def test_a_price_lies_within_the_slippage_guard(price: str, passes: bool) -> None:
    order = buy("1", price, reference_price=Decimal(100))
    limits = replace(WIDE, max_slippage_pct=Decimal("0.5"))

    assert codes(order, context(), limits) == ([] if passes else ["max_slippage_pct"])


def test_only_allowed_symbols_are_opened_and_no_blocked_ones() -> None:
    only_pep = replace(WIDE, allowed_symbols=frozenset({"PEP"}))
    not_ko = replace(WIDE, blocked_symbols=frozenset({"KO"}))

    assert codes(buy("1"), context(), only_pep) == ["symbol_not_allowed"]
    assert codes(buy("1"), context(), not_ko) == ["symbol_not_allowed"]
    assert codes(buy("1"), context(), replace(WIDE, allowed_symbols=frozenset({"KO"}))) == []


@pytest.mark.parametrize("kind", ["regular", "extended", "closed"])
def test_orders_are_taken_in_the_allowed_sessions_only(kind: Any) -> None:
    session = exchange.Session(kind=kind, day=DAY.date(), opens=at(9, 30), closes=at(16, 0))
    limits = replace(WIDE, allowed_sessions=frozenset({"regular"}))

    found = codes(buy("1"), context(session=session), limits)

    assert found == ([] if kind == "regular" else ["session_not_allowed"])


@pytest.mark.parametrize(
    ("kind", "moment", "passes"),
    [
        ("opg", time(9, 27, 59), True),
        ("opg", time(9, 28), False),
        ("opg", time(18, 59, 59), False),
        ("opg", time(19, 0), True),
        ("cls", time(15, 49, 59), True),
        ("cls", time(15, 50), False),
        ("cls", time(19, 0), True),
        ("day", time(15, 55), True),
    ],
)
def test_auction_orders_come_in_time(kind: str, moment: time, passes: bool) -> None:
    now = datetime.combine(DAY.date(), moment, exchange.NEW_YORK)
    order = buy("1", time_in_force=kind)

    assert codes(order, context(local_time=now)) == ([] if passes else ["auction_closed"])


def test_the_closing_auction_of_a_short_day_is_earlier() -> None:
    session = exchange.Session(kind="regular", day=DAY.date(), opens=at(9, 30), closes=at(13, 0))
    around = context(session=session, local_time=DAY.replace(hour=12, minute=50))

    assert codes(buy("1", time_in_force="cls"), around) == ["auction_closed"]


# --- states ------------------------------------------------------------------------------------


def state(name: str, **changes: Any) -> TradingState:
    reasons = (Reason(code="by_a_person", state=name, message="Ann set it."),)
    return TradingState(state=name, reasons=reasons, **changes)


@pytest.mark.parametrize(("qty", "passes"), [("39", True), ("40", True), ("41", False)])
def test_reducing_passes_what_is_free_of_the_position_and_no_more(qty: str, passes: bool) -> None:
    around = context(
        held="50", committed=Committed(Decimal(0), {"KO": Decimal(10)}), trading=state(REDUCING)
    )

    assert ("trading_reducing" not in codes(sell(qty), around)) == passes


def test_reducing_passes_nothing_from_flat_and_no_buy() -> None:
    around = context(trading=state(REDUCING))

    assert codes(buy("1"), around) == ["trading_reducing"]
    assert codes(sell("1"), around) == ["trading_reducing", "insufficient_quantity"]
    assert "Ann set it." in violations(buy("1"), around)[0].message


def test_reducing_passes_a_buy_that_covers() -> None:
    around = context(held="-5", trading=state(REDUCING))

    assert codes(buy("5"), around) == []
    assert "trading_reducing" in codes(buy("6"), around)


def test_reducing_passes_a_replacement_that_asks_for_less() -> None:
    less = buy("40", replaced_qty=Decimal(50), replaced_cost=Decimal(500))

    assert codes(less, context(trading=state(REDUCING))) == []


def test_half_open_one_order_may_try() -> None:
    assert codes(buy("1"), context(trading=state(REDUCING, may_probe=True))) == []


def test_halted_passes_nothing_at_all() -> None:
    around = context(held="50", trading=state(HALTED))

    assert codes(sell("1"), around) == ["trading_halted"]


def test_an_account_that_is_blocked_or_suspended_takes_nothing() -> None:
    assert codes(buy("1"), context(account=account(blocked=True))) == ["account_blocked"]
    assert codes(buy("1"), context(account=account(suspended=True))) == ["account_suspended"]


def test_no_risk_is_added_while_an_earlier_order_is_unresolved() -> None:
    around = context(unresolved_symbols=frozenset({"KO"}))

    assert codes(buy("1"), around) == ["symbol_unresolved"]
    assert codes(sell("1"), replace(around, held_qty=Decimal(1), free_qty=Decimal(1))) == []


# --- our own orders on the other side ----------------------------------------------------------


def standing(type: str = "limit", price: str | None = "10", **changes: Any) -> Opposite:
    limit_price = None if price is None else Decimal(price)
    return Opposite(
        client_order_id="other", type=type, limit_price=limit_price, **{"opens": False, **changes}
    )


@pytest.mark.parametrize(("price", "passes"), [("10.01", True), ("10", False), ("9.99", False)])
def test_limits_on_both_sides_must_not_cross(price: str, passes: bool) -> None:
    around = context(held="50", opposite=(standing(price="10"),))

    assert codes(sell("1", price), around) == ([] if passes else ["wash_trade"])


@pytest.mark.parametrize("theirs", ["market", "stop"])
def test_a_market_or_stop_order_stands_beside_no_order_on_the_other_side(theirs: str) -> None:
    around = context(held="50", opposite=(standing(theirs, None),))

    assert codes(sell("1", "10000"), around) == ["wash_trade"]
    assert codes(sell("1", type=theirs), context(held="50", opposite=(standing(price="1"),))) == [
        "wash_trade"
    ]


def test_pairs_and_trailing_stops_are_exempt() -> None:
    around = context(held="50", opposite=(standing(is_pair=True), standing("trailing_stop", None)))

    assert codes(sell("1", "5"), around) == []
    crossing = context(held="50", opposite=(standing("market", None),))
    assert codes(sell("1", is_pair=True), crossing) == []
    assert codes(sell("1", type="trailing_stop"), crossing) == []


def test_no_position_is_opened_both_ways_at_once() -> None:
    around = context(opposite=(standing(price="20", opens=True),))

    assert codes(buy("1", "10"), around) == ["opposite_order_open"]


# --- broken input ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INFINITE, Decimal("1e14")])
@pytest.mark.parametrize("name", ["equity", "buying_power", "cash"])
def test_a_figure_of_the_broker_that_is_no_number_denies(name: str, value: Decimal) -> None:
    for order in (buy("1"), sell("1")):
        around = context(held="5", account=account(**{name: value}))

        assert codes(order, around) == ["figures_unusable"]


@pytest.mark.parametrize("name", ["held_qty", "free_qty"])
def test_shares_that_are_no_number_deny(name: str) -> None:
    assert "figures_unusable" in codes(sell("1"), context(**{name: NAN}))


def test_a_held_symbol_without_a_price_denies() -> None:
    around = context(held="5", unpriced=frozenset({"GE"}))

    (violation,) = violations(buy("1"), around)

    assert violation.code == "figures_unusable"
    assert "no price for GE" in violation.message
    assert codes(sell("5"), around) == []


@pytest.mark.parametrize("changes", [{"qty": NAN}, {"qty": Decimal(0)}, {"worst_price": INFINITE}])
def test_an_order_that_is_no_number_is_denied(changes: Any) -> None:
    assert codes(replace(buy("1"), **changes), context()) == ["order_unusable"]


# --- all of them -------------------------------------------------------------------------------


def test_all_violations_come_back_at_once_each_with_limit_and_actual() -> None:
    limits = Limits(max_order_qty=Decimal(10), max_order_notional=Decimal(100))
    around = context(
        account=account(buying_power=Decimal(1000), equity=Decimal(1000)), strategy_orders=60
    )

    found = violations(buy("200"), around, limits)

    assert [(each.code, each.limit, each.actual) for each in found] == [
        ("max_orders_per_minute", 60, 61),
        ("max_order_qty", 10, 200),
        ("max_order_notional", 100, 2000),
        ("insufficient_buying_power", 990, 2000),
        ("max_position_pct", 5, 200),
        ("max_exposure_pct", 150, 200),
        ("max_sector_pct", 30, 200),
    ]
    assert all(each.message for each in found)


def test_an_order_that_takes_most_of_what_is_left_is_thin() -> None:
    thin = [each.code for each in evaluate(buy("260"), context(), Limits()) if each.is_thin]

    assert thin == ["max_position_pct"]  # 2.6 of 5 %
    assert not any(each.is_thin for each in evaluate(buy("250"), context(), Limits()))
