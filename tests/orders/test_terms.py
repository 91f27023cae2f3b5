"""What the broker would refuse is refused before, rule by rule; and the rules are the simulated
broker's own."""

from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from typing import Any

import pytest

from orders.errors import OrderSubmissionError
from orders.terms import Terms, check
from ordinis.broker.port import AssetReport
from risk.models import ORDER_TYPES
from tests.conftest import hold
from tests.simulator_server import SimulatorServer

NUMBERS = ("qty", "limit_price", "stop_price", "trail_price", "trail_percent")
PRICES: dict[str, dict[str, str]] = {
    "limit": {"limit_price": "249.93"},
    "market": {},
    "stop": {"stop_price": "255"},
    "stop_limit": {"stop_price": "255", "limit_price": "256"},
    "trailing_stop": {"trail_percent": "5"},
}
OCO = {"order_class": "oco", "limit_price": "262.50", "stop_price": "244", "side": "sell"}


def _terms(kind: str = "limit", **changes: Any) -> Terms:
    """A buy of 50 TSLA with the prices that its type needs, unless told otherwise."""
    values: dict[str, Any] = {
        "symbol": "TSLA",
        "side": "buy",
        "qty": "50",
        "type": kind,
        "time_in_force": "day",
        "extended_hours": False,
        **dict.fromkeys(NUMBERS[1:]),
        **PRICES[kind],
        **changes,
    }
    numbers = {name: Decimal(values[name]) for name in NUMBERS if values[name] is not None}
    return Terms(**{**values, **numbers})


def _asset(**changes: Any) -> AssetReport:
    values: dict[str, Any] = {
        "symbol": "TSLA",
        "asset_class": "us_equity",
        "status": "active",
        "tradable": True,
        "fractionable": True,
        "shortable": True,
        "marginable": True,
        "raw": {},
    }
    return AssetReport(**{**values, **changes})


def _code(terms: Terms, asset: AssetReport | None = None) -> str:
    """What the terms are refused with; empty when they are not."""
    try:
        check(terms, asset)
    except OrderSubmissionError as error:
        return error.code
    return ""


@pytest.mark.parametrize("kind", ORDER_TYPES)
@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("time_in_force", ["day", "gtc"])
def test_every_type_with_its_own_prices_is_taken(kind: str, side: str, time_in_force: str) -> None:
    assert _code(_terms(kind, side=side, time_in_force=time_in_force), _asset()) == ""


def test_a_trailing_stop_may_follow_by_dollars_or_by_any_part_of_a_per_cent() -> None:
    assert _code(_terms("trailing_stop", trail_percent=None, trail_price="1.50")) == ""
    assert _code(_terms("trailing_stop", trail_percent="2.125")) == ""


@pytest.mark.parametrize("stop", ["251", "256", "260"])
def test_the_prices_of_a_stop_limit_may_lie_either_way_round(stop: str) -> None:
    assert _code(_terms("stop_limit", stop_price=stop)) == ""


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("limit", {"limit_price": None}, "limit_price_required"),
        ("limit", {"stop_price": "255"}, "stop_price_not_allowed"),
        ("market", {"limit_price": "250"}, "limit_price_not_allowed"),
        ("market", {"trail_price": "1"}, "trail_price_not_allowed"),
        ("stop", {"stop_price": None}, "stop_price_required"),
        ("stop", {"limit_price": "250"}, "limit_price_not_allowed"),
        ("stop_limit", {"stop_price": None}, "stop_price_required"),
        ("stop_limit", {"limit_price": None}, "limit_price_required"),
        ("stop_limit", {"trail_percent": "5"}, "trail_percent_not_allowed"),
        ("trailing_stop", {"stop_price": "255"}, "stop_price_not_allowed"),
        ("trailing_stop", {"trail_percent": None}, "trail_required"),
        ("trailing_stop", {"trail_price": "1"}, "trail_required"),
        ("limit", {"limit_price": "249.935"}, "limit_price_off_tick"),
        ("limit", {"limit_price": "1.001"}, "limit_price_off_tick"),
        ("limit", {"limit_price": "0.99995"}, "limit_price_off_tick"),
        ("stop", {"stop_price": "255.001"}, "stop_price_off_tick"),
        ("stop_limit", {"stop_price": "255.001"}, "stop_price_off_tick"),
        ("trailing_stop", {"trail_percent": None, "trail_price": "1.505"}, "trail_price_off_tick"),
        ("stop", {"time_in_force": "ioc"}, "time_in_force_not_allowed"),
        ("stop_limit", {"time_in_force": "opg"}, "time_in_force_not_allowed"),
        ("trailing_stop", {"time_in_force": "cls"}, "time_in_force_not_allowed"),
        ("limit", {"time_in_force": "gtd"}, "time_in_force_not_allowed"),
        ("market", {"extended_hours": True}, "extended_hours_not_allowed"),
        ("stop", {"extended_hours": True}, "extended_hours_not_allowed"),
        ("trailing_stop", {"extended_hours": True}, "extended_hours_not_allowed"),
        ("limit", {"extended_hours": True, "time_in_force": "ioc"}, "extended_hours_not_allowed"),
    ],
)
def test_what_does_not_go_with_the_type_is_refused(
    kind: str, changes: dict[str, Any], code: str
) -> None:
    assert _code(_terms(kind, **changes)) == code


@pytest.mark.parametrize("price", ["0.9999", "0.1234", "1", "1.01", "249.9300"])
def test_a_price_on_the_brokers_step_is_taken(price: str) -> None:
    assert _code(_terms(limit_price=price)) == ""


@pytest.mark.parametrize("kind", ["limit", "market"])
@pytest.mark.parametrize("time_in_force", ["ioc", "fok", "opg", "cls"])
def test_limit_and_market_orders_may_be_immediate_or_for_an_auction(
    kind: str, time_in_force: str
) -> None:
    assert _code(_terms(kind, time_in_force=time_in_force)) == ""


@pytest.mark.parametrize("time_in_force", ["day", "gtc"])
def test_a_limit_order_may_trade_in_extended_hours(time_in_force: str) -> None:
    assert _code(_terms(extended_hours=True, time_in_force=time_in_force)) == ""


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (_terms(limit_price="249.935"), "249.935 is not a multiple of the smallest step, 0.01"),
        (_terms("stop", time_in_force="ioc"), "stop orders can't be ioc. Use one of day, gtc."),
        (_terms("market", limit_price="1"), "market orders have no limit_price. Leave it out"),
        (_terms(qty="0.5", time_in_force="gtc"), "Use time_in_force day, or whole shares."),
    ],
)
def test_a_refusal_says_what_to_do(terms: Terms, words: str) -> None:
    with pytest.raises(OrderSubmissionError) as refused:
        check(terms, None)

    assert words in str(refused.value)


def test_a_type_that_nobody_knows_is_refused() -> None:
    values = {name: getattr(_terms(), name) for name in Terms.__slots__}

    assert _code(Terms(**{**values, "type": "iceberg"})) == "order_type_unknown"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, ""),
        ({"stop_price": "262.49"}, ""),
        ({"stop_price": "262.50"}, "oco_prices_crossed"),
        ({"side": "buy"}, "oco_prices_crossed"),
        ({"side": "buy", "limit_price": "240"}, ""),
        ({"side": "buy", "limit_price": "0.5", "stop_price": "0.5099"}, "oco_prices_crossed"),
        ({"stop_price": None}, "stop_price_required"),
        ({"limit_price": None}, "limit_price_required"),
        ({"time_in_force": "ioc"}, "time_in_force_not_allowed"),
        ({"extended_hours": True}, "extended_hours_not_allowed"),
        ({"qty": "1.5"}, "fraction_type_not_allowed"),
        ({"kind": "stop_limit"}, "oco_not_limit"),
    ],
)
def test_an_oco_pair_has_its_two_exits_apart(changes: dict[str, Any], code: str) -> None:
    assert _code(_terms(**{**OCO, **changes})) == code


@pytest.mark.parametrize("kind", ["limit", "market", "stop", "stop_limit"])
@pytest.mark.parametrize("qty", ["1591.166892", "0.000000001", "0.5"])
def test_fractions_are_sold_in_every_type_but_trailing_stops(kind: str, qty: str) -> None:
    assert _code(_terms(kind, side="sell", qty=qty), _asset()) == ""


@pytest.mark.parametrize(
    ("kind", "changes", "code"),
    [
        ("trailing_stop", {}, "fraction_type_not_allowed"),
        ("limit", {"time_in_force": "gtc"}, "fraction_not_day"),
        ("market", {"time_in_force": "opg"}, "fraction_not_day"),
        ("limit", {"qty": "0.0000000015"}, "fraction_too_fine"),
        # A buy costs at least a dollar: 0.004 shares of 249.93 cost 0.99972.
        ("limit", {"qty": "0.004"}, "fraction_too_small"),
        ("stop_limit", {"qty": "0.0039"}, "fraction_too_small"),
        ("limit", {"qty": "0.004", "limit_price": "250"}, ""),
        # A stop counts with its collar: 255 and 2.5 % are 261.38.
        ("stop", {"qty": "0.0038"}, "fraction_too_small"),
        ("stop", {"qty": "0.0039"}, ""),
        ("market", {"qty": "0.001"}, ""),  # its price is not known
        ("limit", {"extended_hours": True}, ""),
    ],
)
def test_what_fractions_may_not_do_is_refused(
    kind: str, changes: dict[str, Any], code: str
) -> None:
    assert _code(_terms(kind, **{"qty": "1.5", **changes}), _asset()) == code


def test_whole_shares_may_be_of_any_size_and_written_with_zeros() -> None:
    assert _code(_terms(qty="1.000000000", limit_price="0.5000", time_in_force="gtc")) == ""


@pytest.mark.parametrize(
    ("report", "qty", "code"),
    [
        ({"asset_class": "crypto"}, "50", "asset_class_not_supported"),
        ({"asset_class": "us_option"}, "50", "asset_class_not_supported"),
        ({"asset_class": ""}, "50", "asset_class_not_supported"),
        ({"status": "inactive"}, "50", "asset_not_tradable"),
        ({"tradable": False}, "50", "asset_not_tradable"),
        ({"fractionable": False}, "0.5", "asset_not_fractionable"),
        ({"fractionable": False}, "50", ""),
    ],
)
def test_only_active_us_shares_are_traded_and_fractions_where_allowed(
    report: dict[str, Any], qty: str, code: str
) -> None:
    assert _code(_terms(qty=qty), _asset(**report)) == code


@pytest.mark.parametrize("qty", ["50", "0.5"])
def test_nothing_is_concluded_where_the_asset_is_not_known(qty: str) -> None:
    assert _code(_terms(qty=qty), None) == ""


def _everything() -> Iterator[Terms]:
    """Every type with its prices and with one too many or too few, at all times, in whole shares
    and fractions."""
    wrong: list[dict[str, Any]] = [
        {},
        {"limit_price": None},
        {"stop_price": "255"},
        {"trail_price": "1"},
    ]
    times = ["day", "gtc", "ioc", "fok", "opg", "cls"]
    for kind, changes, time_in_force, late, qty in product(
        ORDER_TYPES, wrong, times, [False, True], ["2", "1.5"]
    ):
        values = {"qty": qty, "time_in_force": time_in_force, "extended_hours": late, **changes}
        yield _terms(kind, side="sell", **values)


def test_the_simulated_broker_takes_what_passes_and_refuses_what_does_not() -> None:
    """No fault of the terms is left for the broker to find, and none is invented."""
    with SimulatorServer() as sim:
        sim.post("/sim/price", {"hold": True})
        sim.post("/sim/clock", {"hold": True, "set": "2026-11-20T14:00:00Z"})  # before the open
        hold(sim, "TSLA", "100000", "240")
        answers = set()
        for terms in _everything():
            body = {name: getattr(terms, name) for name in Terms.__slots__}
            texts = {
                name: f"{value:f}" if isinstance(value, Decimal) else value
                for name, value in body.items()
            }

            answer = sim.trading("POST", "/v2/orders", json=texts)

            ours = _code(terms, _asset())
            assert (answer.status_code == 200) is (ours == ""), f"{terms}: {ours} {answer.text}"
            answers.add(answer.status_code)
    assert answers == {200, 422}
