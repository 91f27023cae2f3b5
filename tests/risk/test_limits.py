"""Limits: defaults, versions, fall-back from strategy to account, and clear refusals."""

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from ordinis.accounts.models import BrokerAccount, Strategy
from risk.limits import Limits, in_force
from risk.models import RiskLimits
from tests.conftest import Api

pytestmark = pytest.mark.django_db


def _set(*values: str, **options: str | bool) -> str:
    out = StringIO()
    call_command("limits", *values, stdout=out, **{"reason": "test", **options})
    return out.getvalue()


def test_without_any_version_the_defaults_hold(strategy: Strategy) -> None:
    assert in_force(strategy.account_id, strategy.pk) == Limits()


def test_each_change_is_a_version_with_author_and_reason(account: BrokerAccount) -> None:
    _set("buy_offset=10", reason="tighter")
    _set("sell_offset=5", reason="and the other side")

    rows = RiskLimits.objects.order_by("version")
    assert [(row.version, row.reason, row.buy_offset) for row in rows] == [
        (1, "tighter", 10),
        (2, "and the other side", None),
    ]
    assert [row.changed for row in rows] == [["buy_offset"], ["sell_offset"]]
    assert all("command line" in row.actor for row in rows)
    assert in_force(account.pk).sell_offset == 5


def test_a_strategys_offset_overrides_and_falls_back_when_cleared(strategy: Strategy) -> None:
    _set("buy_offset=10")
    _set("buy_offset=20", strategy="rsi")
    assert in_force(strategy.account_id, strategy.pk).buy_offset == 20

    _set("buy_offset=", strategy="rsi")

    assert in_force(strategy.account_id, strategy.pk).buy_offset == 10


def test_a_strategys_own_guard_can_only_be_tighter(strategy: Strategy) -> None:
    _set("max_slippage_pct=0.3", "buying_power_buffer_pct=2")
    _set("max_slippage_pct=0.9", "buying_power_buffer_pct=1", strategy="rsi")

    limits = in_force(strategy.account_id, strategy.pk)

    assert (str(limits.max_slippage_pct), str(limits.buying_power_buffer_pct)) == (
        "0.300",
        "2.00",
    )


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("market,limit", "limit,market"),
        (" trailing_stop , stop,stop,", "limit,stop,trailing_stop"),
        ("limit", "limit"),
        ("", ""),
    ],
)
def test_order_types_are_stored_in_one_spelling_and_always_hold_limit(
    account: BrokerAccount, given: str, stored: str
) -> None:
    _set(f"allowed_order_types={given}")

    assert RiskLimits.objects.get().allowed_order_types == stored
    assert in_force(account.pk).allowed_order_types == {"limit", *stored.split(",")} - {""}


@pytest.mark.parametrize(
    ("key", "default"),
    [("max_positions", 20), ("max_position_pct", 5), ("max_orders_per_minute", 60)],
)
def test_where_the_account_says_nothing_a_strategys_own_is_no_wider_than_the_default(
    strategy: Strategy, key: str, default: int
) -> None:
    _set(f"{key}={default + 30}", strategy="rsi")
    assert getattr(in_force(strategy.account_id, strategy.pk), key) == default

    _set(f"{key}={default - 1}", strategy="rsi")
    assert getattr(in_force(strategy.account_id, strategy.pk), key) == default - 1


@pytest.mark.parametrize(
    ("accounts", "strategys", "both"),
    [
        ("market,stop", "stop,trailing_stop", {"limit", "stop"}),
        ("market", "limit", {"limit"}),
        ("market", "", {"limit", "market"}),
        ("", "market", {"limit"}),  # the account's default counts: it alone opens types
    ],
)
def test_a_strategy_can_only_take_order_types_away(
    strategy: Strategy, accounts: str, strategys: str, both: set[str]
) -> None:
    _set(f"allowed_order_types={accounts}")
    _set(f"allowed_order_types={strategys}", strategy="rsi")

    assert in_force(strategy.account_id, strategy.pk).allowed_order_types == both


@pytest.mark.parametrize(
    ("accounts", "strategys", "guarded"),
    [
        ("no", "", False),
        ("no", "no", False),
        ("no", "yes", True),
        ("yes", "no", True),
        ("", "no", True),
        ("", "", True),
    ],
)
def test_the_duplicate_guard_is_on_when_account_or_strategy_has_it_on(
    strategy: Strategy, accounts: str, strategys: str, guarded: bool
) -> None:
    _set(f"duplicate_guard={accounts}")
    _set(f"duplicate_guard={strategys}", strategy="rsi")

    assert in_force(strategy.account_id, strategy.pk).duplicate_guard is guarded


def test_the_command_shows_each_value_as_it_can_be_given_again(account: BrokerAccount) -> None:
    shown = _set("allowed_order_types=stop,market", "duplicate_guard=no")
    pairs = shown.splitlines()[1:]

    assert "allowed_order_types=limit,market,stop" in pairs
    assert "duplicate_guard=no" in pairs
    assert _set(*pairs).splitlines()[1:] == pairs


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("buy_offset=-1", "greater than or equal to 0"),
        ("buy_offset=abc", "decimal"),
        ("offset_mode=percent", "choose from bps, absolute"),
        ("dependents_activation=foo", "choose from at_end, as_it_fills"),
        ("buying_power_buffer_pct=101", "less than or equal to 100"),
        ("allowed_order_types=market,iceberg", "iceberg: not an order type. Known: limit, market"),
        ("allowed_order_types=Market", "Market: not an order type"),
        ("duplicate_guard=maybe", "maybe.* is neither yes nor no"),
        ("buy_offset=yes", "decimal"),
        ("max_cash=5", "not a limit that this version enforces"),
        ("account_orders_per_minute=5", "not a limit that this version enforces"),
        ("max_positions=-1", "greater than or equal to 0"),
        ("max_positions=2.5", "integer"),
        ("max_position_pct=600.01", "less than or equal to 600"),
        ("max_position_pct=NaN", "decimal"),
        ("max_order_qty=0", "greater than or equal to 1E-9"),
        ("max_orders_per_minute=0", "greater than or equal to 1"),
        ("breaker_window_seconds=9", "greater than or equal to 10"),
        ("allowed_sessions=regular,lunch", "lunch: not a session. Known: regular, extended"),
        ("blocked_symbols=TSLA,AAPL250117C00150000", "AAPL250117C00150000: not a symbol"),
        ("nonsense", "KEY=VALUE"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason_and_changes_nothing(
    account: BrokerAccount, value: str, message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        _set(value)

    assert RiskLimits.objects.count() == 0


def test_a_change_without_a_reason_is_refused(account: BrokerAccount) -> None:
    with pytest.raises(CommandError, match="--reason"):
        _set("buy_offset=10", reason="")


def test_reconcile_mode_is_not_for_a_strategy(strategy: Strategy) -> None:
    with pytest.raises(CommandError, match="for the account only"):
        _set("reconcile_mode=off", strategy="rsi")


@pytest.mark.parametrize(
    ("given", "stored"), [("tsla, brk.b,TSLA,", "BRK.B,TSLA"), (" , ", ""), ("F", "F")]
)
def test_symbols_are_stored_in_one_spelling(
    account: BrokerAccount, given: str, stored: str
) -> None:
    _set(f"blocked_symbols={given}", f"allowed_symbols={given}")

    row = RiskLimits.objects.get()
    assert (row.blocked_symbols, row.allowed_symbols) == (stored, stored)
    limits = in_force(account.pk)
    assert limits.blocked_symbols == frozenset(stored.split(",")) - {""}
    assert limits.allowed_symbols == (frozenset(stored.split(",")) if stored else None)


def test_what_strategy_and_account_allow_is_what_both_allow_and_what_either_blocks(
    strategy: Strategy,
) -> None:
    _set("allowed_symbols=A,B", "blocked_symbols=C", "allowed_sessions=regular,closed")
    _set("allowed_symbols=B,D", "blocked_symbols=E", "allowed_sessions=regular", strategy="rsi")

    limits = in_force(strategy.account_id, strategy.pk)

    assert limits.allowed_symbols == {"B"}
    assert limits.blocked_symbols == {"C", "E"}
    assert limits.allowed_sessions == {"regular"}


def test_lists_without_anything_in_common_allow_nothing_and_are_not_given_as_all(
    strategy: Strategy,
) -> None:
    _set("allowed_symbols=A")

    shown = _set("allowed_symbols=B", strategy="rsi")

    assert in_force(strategy.account_id, strategy.pk).allowed_symbols == frozenset()
    assert "# allowed_symbols: none, account and strategy have none in common" in shown
    assert "allowed_symbols=\n" not in shown


def test_the_rate_of_the_account_as_a_whole_is_the_accounts_own(strategy: Strategy) -> None:
    _set("max_orders_per_minute=30", strategy="rsi")
    assert in_force(strategy.account_id, strategy.pk).account_orders_per_minute == 60

    _set("max_orders_per_minute=50")

    limits = in_force(strategy.account_id, strategy.pk)
    assert (limits.max_orders_per_minute, limits.account_orders_per_minute) == (30, 50)


def test_what_a_strategy_prints_can_be_given_again(strategy: Strategy) -> None:
    shown = _set("max_positions=7", "blocked_symbols=F", strategy="rsi")
    pairs = [line for line in shown.splitlines()[1:] if not line.startswith("#")]
    assert "max_positions=7" in pairs

    again = _set(*pairs, strategy="rsi")

    assert [line for line in again.splitlines()[1:] if not line.startswith("#")] == pairs


def test_it_is_said_where_the_accounts_tighter_value_holds(strategy: Strategy) -> None:
    _set("max_positions=10")

    shown = _set("max_positions=15", strategy="rsi")

    assert "max_positions=10" in shown.splitlines()
    assert (
        "# max_positions: the strategy's own is 15, the account's is 10: the tighter, 10, holds"
    ) in shown


def test_a_check_says_what_would_be_and_stores_nothing(account: BrokerAccount) -> None:
    _set("loosening_needs_approval=yes")

    shown = _set("max_positions=30", check=True, reason="")

    assert "Nothing is stored" in shown
    assert "# max_positions: 20 → 30 (loosens)" in shown
    assert RiskLimits.objects.count() == 1


def test_a_change_until_then_or_from_the_next_session_on_is_told_as_such(
    account: BrokerAccount,
) -> None:
    for_now = _set("max_positions=5", until="2h", reason="quiet\nday")
    later = _set("buy_offset=3", starts="next_session")

    assert "max_positions=5" in for_now.splitlines()
    told = [line for line in later.splitlines() if line.startswith("#")]
    assert len(told) == 2
    assert re.fullmatch(
        r"# main, version 1: temporary, from .* until .* ET: max_positions=5 \(quiet day\)", told[0]
    )
    assert re.fullmatch(
        r"# main, version 2: scheduled, from .* ET on: buy_offset=3 \(test\)", told[1]
    )
    assert "buy_offset=15" in later.splitlines()


def test_a_change_that_waits_is_told_as_such(account: BrokerAccount) -> None:
    _set("loosening_needs_approval=yes")

    shown = _set("max_positions=30", until="2h")

    assert "main, version 2 loosens a limit and waits for a second person" in shown
    assert "# Loosens max_positions." in shown
    assert (
        "# main, version 2: waiting for a second person, from its approval, for 2 h: "
        "max_positions=30 (test)"
    ) in shown
    assert "max_positions=20" in shown.splitlines()


def test_it_is_told_what_a_tightening_would_have_denied(strategy: Strategy) -> None:
    assert "# Of 0 orders sent in the last 30 days it would have denied 0." in _set(
        "max_positions=5"
    )
    assert "would have denied" not in _set("max_positions=6")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["max_positions=5"], {"until": "tomorrow"}, "is no end"),
        (["max_positions=5"], {"until": "2020-01-01 16:00"}, "must end after it starts"),
        ([], {"until": "2h"}, "Name what to change"),
        ([], {"check": True}, "Name what to change"),
    ],
)
def test_a_window_that_is_not_allowed_is_refused_and_changes_nothing(
    account: BrokerAccount, values: list[str], options: dict[str, str | bool], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        _set(*values, **options)

    assert not RiskLimits.objects.exists()


def test_an_account_without_a_strategy_of_that_name_is_told_so(account: BrokerAccount) -> None:
    with pytest.raises(CommandError, match="has no strategy 'momentum'"):
        _set("max_positions=3", strategy="momentum")


def test_the_api_shows_what_holds_for_the_strategy(api: Api, strategy: Strategy) -> None:
    _set(
        "allowed_order_types=trailing_stop,market", "duplicate_guard=no", "blocked_symbols=F,BRK.B"
    )
    _set("buy_offset=20", "duplicate_guard=yes", "max_order_qty=1.5", strategy="rsi")

    assert api.get("/risk/limits").json() == {
        "max_positions": "20",
        "max_position_pct": "5",
        "max_exposure_pct": "150",
        "max_net_exposure_pct": None,
        "max_sector_pct": "30",
        "buying_power_buffer_pct": "1",
        "max_order_qty": "1.5",
        "max_order_notional": None,
        "max_orders_per_minute": "60",
        "allowed_order_types": ["limit", "market", "trailing_stop"],
        "allowed_symbols": None,
        "blocked_symbols": ["BRK.B", "F"],
        "allowed_sessions": ["closed", "extended", "regular"],
        "allow_short": False,
        "duplicate_guard": True,
        "breaker_error_rate_pct": "10",
        "breaker_window_seconds": "300",
        "breaker_min_orders": "10",
        "breaker_consecutive_failures": "5",
        "breaker_equity_drop_pct": "5",
        "breaker_min_buying_power": "1000",
        "breaker_cooldown_seconds": "300",
        "offset_mode": "bps",
        "buy_offset": "20",
        "sell_offset": "10",
        "max_slippage_pct": "0.5",
        "loosening_needs_approval": False,
        "dependents_activation": "at_end",
        "reconcile_mode": "manual",
        "auto_correct_max_value": "100",
        "auto_correct_max_qty": "1",
        "drift_alert_value": "100",
    }
