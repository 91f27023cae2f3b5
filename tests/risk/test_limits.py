"""Limits: defaults, versions, fall-back from strategy to account, and clear refusals."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from ordinis.accounts.models import BrokerAccount, Strategy
from risk.limits import Limits, in_force
from risk.models import RiskLimits
from tests.conftest import Api

pytestmark = pytest.mark.django_db


def _set(*values: str, **options: str) -> str:
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
        (2, "and the other side", 10),
    ]
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
        ("max_positions=5", "not a limit that this version enforces"),
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


def test_the_api_shows_what_holds_for_the_strategy(api: Api, strategy: Strategy) -> None:
    _set("allowed_order_types=trailing_stop,market", "duplicate_guard=no")
    _set("buy_offset=20", "duplicate_guard=yes", strategy="rsi")

    assert api.get("/risk/limits").json() == {
        "buying_power_buffer_pct": "1",
        "allowed_order_types": ["limit", "market", "trailing_stop"],
        "duplicate_guard": True,
        "offset_mode": "bps",
        "buy_offset": "20",
        "sell_offset": "10",
        "max_slippage_pct": "0.5",
        "dependents_activation": "at_end",
        "reconcile_mode": "manual",
    }
