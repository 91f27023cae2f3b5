"""Property: whenever all our checks pass, the broker takes the order (SPEC section 6: no refusal
for buying power or quantity); and what is denied for money or shares alone it refuses. Random books
and random orders, through the real API to the real simulator, whose refusals are Alpaca's
(ALPACA.md sections 3 and 4).

A strategy's reference price is taken to be the ask that it sees: nothing else says what a market
order costs, and what a short sale ties up. The margin for figures that lag behind is off, since the
simulator's do not: what passes is then judged at its closest.
"""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any

import pytest
from django.conf import LazySettings
from hypothesis import HealthCheck, Phase, example, given, note, settings
from hypothesis import strategies as st

from orders import assets, sync, wake, working
from ordinis.accounts.brokers import _adapter
from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy
from risk.limits import change
from risk.models import ORDER_TYPES
from tests import flushing
from tests.conftest import Api
from tests.open_desk import WIDE
from tests.simulator_server import SimulatorServer

CENT, STEP = Decimal("0.01"), Decimal("0.0001")
# Symbol: price, and what is special about it.
LISTED: dict[str, tuple[str, dict[str, bool]]] = {
    "KO": ("60.00", {}),
    "TSLA": ("250.00", {}),
    "FNGU": ("25.60", {}),
    "CASHX": ("20.00", {"marginable": False}),
    "NOLEND": ("30.00", {"shortable": False}),
    "WHOLE": ("40.00", {"fractionable": False}),
    "PENY": ("0.8500", {}),
    "XOM": ("110.00", {}),
    "JPM": ("290.00", {}),
}
_TRADED = ("KO", "TSLA", "FNGU", "CASHX", "NOLEND", "WHOLE", "PENY")
_OURS = ("CASHX", "NOLEND", "WHOLE", "PENY")
_SYMBOLS = st.sampled_from(["KO", "KO", "KO", *_TRADED])
_FOREIGN = st.sampled_from(["XOM", "JPM"])
_MONEY_AND_SHARES = {"insufficient_buying_power", "insufficient_quantity"}


# One order, its quantity by what it aims at: so many shares, or the most that there is money or
# shares for, give or take.
def _orders_in(symbols: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "what": st.just("order"),
            "symbol": symbols,
            "side": st.sampled_from(["buy", "buy", "sell"]),
            "aim": st.sampled_from(["few"] * 6 + ["most"] * 2 + ["fraction"]),
            "few": st.integers(1, 30),
            "off": st.sampled_from(["-1", "0", "0", "0", "1"]),
            "type": st.sampled_from(["limit", "limit", "limit", *ORDER_TYPES]),
            "ticks": st.sampled_from([-300, -20, -1, 0, 0, 1, 20, 300]),
            "time_in_force": st.sampled_from(["day", "day", "gtc", "ioc", "fok", "opg", "cls"]),
            "extended_hours": st.sampled_from([False, False, False, True]),
            "reduce_only": st.sampled_from([False] * 8 + [True]),
            "referenced": st.booleans(),
        }
    )


_orders = _orders_in(_SYMBOLS)
_moves = st.one_of(
    st.just({"what": "time"}),
    st.just({"what": "poll"}),
    st.fixed_dictionaries(
        {"what": st.just("price"), "symbol": _SYMBOLS, "pct": st.sampled_from([-30, -3, 3, 30])}
    ),
)
_books = st.fixed_dictionaries(
    {
        "cash": st.sampled_from(["30000", "2500", "1000000", "900"]),
        "margin": st.sampled_from(["intraday", "maintenance"]),
        # Alpaca wants a fee on top of the cost, which the buffer is for; without one all is spent.
        "cat_fee": st.booleans(),
        "pinned": st.sampled_from([None] * 9 + ["0", "1200.55", "50000"]),
        "allow_short": st.booleans(),
        "held": st.dictionaries(
            _SYMBOLS, st.sampled_from(["-40", "-7", "3.25", "10", "100"]), min_size=1, max_size=4
        ),
        # Orders of the broker's own app, there before Ordinis first looks. In symbols of their own:
        # Ordinis does not know them, and can't tell what they would trade against.
        "foreign": st.lists(_orders_in(_FOREIGN), max_size=3),
        "steps": st.lists(
            st.integers(0, 7).flatmap(lambda number: _orders if number else _moves),
            min_size=6,
            max_size=8,
        ),
    }
)


def _order(symbol: str, side: str, **changes: Any) -> dict[str, Any]:
    """Ten shares at the market's price for the day, but for `changes`."""
    plain = {"what": "order", "aim": "few", "few": 10, "off": "0", "type": "limit", "ticks": 0}
    terms = {"time_in_force": "day", "extended_hours": False, "reduce_only": False}
    return {"symbol": symbol, "side": side, "referenced": False, **plain, **terms, **changes}


def _book(*steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An account with $30,000 and nothing held, in which short selling is allowed."""
    account = {"cash": "30000", "allow_short": True, "held": {}, "foreign": [], "pinned": None}
    return {"steps": steps, "margin": "intraday", "cat_fee": False, **account, **changes}


# One situation for each rule that is about more than the order itself; the rest is up to chance.
_HELD = {"KO": "10"}
_SITUATIONS = (
    _book(_order("KO", "sell", ticks=300), _order("KO", "sell", few=1), held=_HELD),
    _book(_order("KO", "buy"), _order("KO", "buy", few=11), held={"KO": "-20"}),
    _book(_order("KO", "buy", aim="most"), _order("TSLA", "buy", few=1)),
    _book(_order("KO", "buy", aim="most", off="1"), _order("KO", "buy", aim="most", off="0")),
    _book(_order("KO", "sell", aim="most", off="1", referenced=True)),
    _book(_order("KO", "sell", aim="most", referenced=True)),
    _book(_order("CASHX", "buy", aim="most"), _order("CASHX", "buy", few=1500)),
    _book(_order("NOLEND", "sell", referenced=True)),
    _book(_order("KO", "buy", ticks=-300), _order("KO", "sell", ticks=300, referenced=True)),
    _book(_order("KO", "sell", ticks=300, referenced=True), _order("KO", "buy", ticks=-300)),
    _book(_order("KO", "buy", ticks=-20), _order("KO", "sell", ticks=-20), held=_HELD),
    _book(_order("KO", "sell", ticks=20), _order("KO", "buy", type="market"), held=_HELD),
    _book(_order("KO", "buy", type="stop", ticks=20, aim="most"), pinned="6240.60"),
    _book(_order("KO", "sell", few=1, referenced=True), cash="1999"),
)


class Desk:
    """One account with its book, set up anew for each example."""

    def __init__(self, sim: SimulatorServer, book: dict[str, Any], tally: "Counter[str]") -> None:
        self.sim, self.tally = sim, tally
        self.allow_short, self.spends_all = book["allow_short"], not book["cat_fee"]
        flushing._empty()
        assets.forget()
        _adapter.cache_clear()
        sim.post("/sim/reset", {"cash": book["cash"]})
        sim.post("/sim/clock", {"hold": True})
        options = {"buying_power_margin": book["margin"], "cat_fee": book["cat_fee"]}
        sim.post("/sim/options", options)
        sim.post(
            "/sim/symbol",
            [{"symbol": s, "price": LISTED[s][0], **LISTED[s][1]} for s in _OURS],
        )
        self.price = {symbol: Decimal(price) for symbol, (price, _) in LISTED.items()}
        sim.post("/sim/price", [self._quote(symbol) for symbol in LISTED])
        for symbol, qty in book["held"].items():
            sim.post("/sim/position", {"symbol": symbol, "qty": qty, "average_price": "10"})
        if book["pinned"] is not None:
            sim.post("/sim/account", {"buying_power": book["pinned"]})
        for each in book["foreign"]:
            self.sim.trading("POST", "/v2/orders", json=_to_broker(self._body(each)))
        self._later()
        self.account = BrokerAccount.objects.create(
            name="main", broker="simulator", mode="simulated"
        )
        limits = {
            **WIDE,
            "allow_short": book["allow_short"],
            "allowed_order_types": ",".join(ORDER_TYPES),
            "duplicate_guard": False,
            "buying_power_buffer_pct": 1 if book["cat_fee"] else 0,
            "breaker_equity_drop_pct": 100,
            "max_slippage_pct": 6,
            "reconcile_mode": "off",
        }
        change(
            account=self.account, strategy=None, values=limits, reason="The test's.", actor="test"
        )
        strategy = Strategy.objects.create(account=self.account, name="any")
        self.api = Api(ApiToken.issue(strategy, SCOPES)[1])

    def step(self, step: dict[str, Any]) -> None:
        if step["what"] == "time":
            self._later("2")
        elif step["what"] == "poll":
            sync.poll(self.account)
        elif step["what"] == "price":
            moved = self.price[step["symbol"]] * (100 + step["pct"]) / 100
            self.price[step["symbol"]] = moved.quantize(_step_of(moved))
            self.sim.post("/sim/price", self._quote(step["symbol"]))
        else:
            self._order(self._body(step))

    def _order(self, body: dict[str, Any]) -> None:
        answer = self.api.post("/orders", body)
        told = answer.json()
        note(f"{body} → {answer.status_code} {told.get('code') or told['status']}")
        self._later()
        if answer.status_code in (201, 202):
            self.tally["taken"] += 1
            return
        assert told["code"] != "broker_rejected", (body, told["broker_message"], self._state(body))
        codes = {violation["code"] for violation in told.get("violations", [])}
        if codes and codes <= _MONEY_AND_SHARES and self.spends_all and not self._may_not(body):
            self.tally["denied for money or shares"] += 1
            assert not self._would_take(body), (body, told["violations"], self._state(body))

    def _may_not(self, body: dict[str, Any]) -> bool:
        """Whether it is denied on purpose, although the broker would take it. An order of no price
        is judged by the worst that it may come to, the broker's own figure is of this moment. And
        an account that does not sell short says that there are too few shares."""
        if body["type"] in ("market", "trailing_stop"):
            return True
        held = self.sim.trading("GET", f"/v2/positions/{body['symbol']}")
        is_long = held.status_code == 200 and Decimal(held.json()["qty"]) > 0
        return body["side"] == "sell" and not is_long and not self.allow_short

    def _would_take(self, body: dict[str, Any]) -> bool:
        """Whether the broker takes the order, asked of it directly; then all is as it was."""
        before = self.sim.get("/sim/snapshot")
        answer = self.sim.trading("POST", "/v2/orders", json=_to_broker(body))
        self.sim.post("/sim/snapshot", before)
        return answer.status_code == 200

    def _body(self, step: dict[str, Any]) -> dict[str, Any]:
        symbol, kind = step["symbol"], step["type"]
        price = self.price[symbol] + step["ticks"] * _step_of(self.price[symbol])
        price = max(price, CENT).quantize(_step_of(max(price, CENT)))
        body: dict[str, Any] = {
            **{name: step[name] for name in ("symbol", "side", "type", "reduce_only")},
            **_terms(step),
        }
        if kind in ("limit", "stop_limit"):
            body["limit_price"] = str(price)
        if kind in ("stop", "stop_limit"):
            body["stop_price"] = str(price)
        if kind == "trailing_stop":
            body["trail_percent"] = "2"
        if step["referenced"] or kind in ("market", "trailing_stop"):
            body["reference_price"] = str(self.price[symbol])
        return {**body, "qty": format(self._qty(step, price).normalize(), "f")}

    def _qty(self, step: dict[str, Any], price: Decimal) -> Decimal:
        if step["aim"] == "few":
            return Decimal(step["few"])
        if step["aim"] == "fraction":
            return Decimal(step["few"]) / (1 if step["type"] == "trailing_stop" else 8)
        state = self.sim.get("/sim/state")
        held = next((p for p in state["positions"] if p["symbol"] == step["symbol"]), None)
        sign = 1 if step["side"] == "sell" else -1
        if held is not None and Decimal(held["qty"]) * sign > 0:
            most = abs(Decimal(held["qty_available"]))
        else:
            most = Decimal(state["account"]["buying_power"]) / price
            if step["side"] == "sell":
                most = Decimal(state["account"]["buying_power"]) / max(
                    price, self.price[step["symbol"]] * Decimal("1.03")
                )
            most = most.to_integral_value(ROUND_DOWN)
        qty = most + Decimal(step["off"])
        return qty if qty > 0 else Decimal(1)

    def _quote(self, symbol: str) -> dict[str, str]:
        """Both sides of the market are the price, so that the reference is the ask."""
        price = str(self.price[symbol])
        return {"symbol": symbol, "bid": price, "ask": price}

    def _later(self, seconds: str = "0.001") -> None:
        """The broker's clock is held: what happens later must be seen to be later."""
        self.sim.post("/sim/clock", {"advance": seconds})

    def _state(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the broker says around an order, for whoever reads of a discrepancy."""
        state = self.sim.get("/sim/state")
        symbol = body["symbol"]
        return {
            "account": {
                name: state["account"][name] for name in ("equity", "cash", "buying_power")
            },
            "position": [p["qty"] for p in state["positions"] if p["symbol"] == symbol],
            "orders": [
                {
                    name: o[name]
                    for name in (
                        "side",
                        "qty",
                        "filled_qty",
                        "type",
                        "limit_price",
                        "status",
                        "position_intent",
                    )
                }
                for o in state["orders"]
                if o["symbol"] == symbol
            ],
        }


def _terms(step: dict[str, Any]) -> dict[str, Any]:
    """Times in force that go with the type: `orders.terms` has tests of its own."""
    kind, when = step["type"], step["time_in_force"]
    if kind not in ("limit", "market") and when not in ("day", "gtc"):
        when = "day"
    if step["aim"] == "fraction" and kind != "trailing_stop":
        when = "day"
    late = step["extended_hours"] and kind == "limit" and when in ("day", "gtc")
    return {"time_in_force": when, "extended_hours": late}


def _step_of(price: Decimal) -> Decimal:
    return CENT if price >= 1 else STEP


def _to_broker(body: dict[str, Any]) -> dict[str, Any]:
    ours = ("reference_price", "reduce_only")
    return {name: value for name, value in body.items() if name not in ours}


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runs", [25, pytest.param(1000, marks=pytest.mark.long)])
def test_whatever_passes_our_checks_the_broker_takes(
    sim: SimulatorServer, settings: LazySettings, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    settings.FIGURES_MAX_AGE = 0
    monkeypatch.setattr(working, "MARGIN", timedelta(0))
    monkeypatch.setattr(wake, "_begin", lambda function, order_id: None)
    tally: Counter[str] = Counter()

    @_profile(runs)
    @_with_situations
    @given(book=_books)
    def whatever(book: dict[str, Any]) -> None:
        desk = Desk(sim, book, tally)
        for step in book["steps"]:
            desk.step(step)

    whatever()

    # Neither half of the property holds for want of orders that it is about.
    assert tally["taken"] > runs, tally
    assert tally["denied for money or shares"] > runs // 5, tally


def _with_situations(test: Callable[..., None]) -> Callable[..., None]:
    for book in _SITUATIONS:
        test = example(book=book)(test)
    return test


def _profile(runs: int) -> settings:
    return settings(
        max_examples=runs,
        deadline=None,
        derandomize=runs < 1000,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        print_blob=True,
    )
