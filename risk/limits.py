"""The limits in force, and the one way to change them (console form and `limits` command)."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, Q

from ordinis.accounts.models import BrokerAccount, Strategy
from risk.models import SESSIONS, RiskLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The values in force; the defaults are API.md's."""

    max_positions: int = 20
    max_position_pct: Decimal = Decimal(5)
    max_exposure_pct: Decimal = Decimal(150)
    max_net_exposure_pct: Decimal | None = None
    max_sector_pct: Decimal = Decimal(30)
    buying_power_buffer_pct: Decimal = Decimal(1)
    max_order_qty: Decimal | None = None
    max_order_notional: Decimal | None = None
    max_orders_per_minute: int = 60
    allowed_order_types: frozenset[str] = frozenset({"limit"})
    allowed_symbols: frozenset[str] | None = None
    blocked_symbols: frozenset[str] = frozenset()
    allowed_sessions: frozenset[str] = frozenset(SESSIONS)
    allow_short: bool = False
    duplicate_guard: bool = True
    breaker_error_rate_pct: Decimal = Decimal(10)
    breaker_window_seconds: int = 300
    breaker_min_orders: int = 10
    breaker_consecutive_failures: int = 5
    breaker_equity_drop_pct: Decimal = Decimal(5)
    breaker_min_buying_power: Decimal = Decimal(1000)
    breaker_cooldown_seconds: int = 300
    offset_mode: str = RiskLimits.OffsetMode.BPS
    buy_offset: Decimal = Decimal(15)
    sell_offset: Decimal = Decimal(10)
    max_slippage_pct: Decimal = Decimal("0.5")
    loosening_needs_approval: bool = False
    dependents_activation: str = RiskLimits.DependentsActivation.AT_END
    reconcile_mode: str = RiskLimits.ReconcileMode.MANUAL
    # Not a key: the account's own value of max_orders_per_minute, which counts for all of its
    # strategies together.
    account_orders_per_minute: int = 60


KEYS = tuple(field.name for field in fields(Limits) if field.name != "account_orders_per_minute")
# Where account and strategy both set one of these, the tighter holds.
_TIGHTER: dict[str, Callable[[Any, Any], Any]] = {
    "max_positions": min,
    "max_position_pct": min,
    "max_exposure_pct": min,
    "max_net_exposure_pct": min,
    "max_sector_pct": min,
    "buying_power_buffer_pct": max,
    "max_order_qty": min,
    "max_order_notional": min,
    "max_orders_per_minute": min,
    "allowed_order_types": operator.and_,
    "allowed_symbols": operator.and_,
    "blocked_symbols": operator.or_,
    "allowed_sessions": operator.and_,
    "allow_short": operator.and_,
    "duplicate_guard": operator.or_,
    "max_slippage_pct": min,
}
# Only the account opens these: where it says nothing, a strategy meets the account's default.
_ACCOUNT_OPENS = ("allowed_order_types", "duplicate_guard", "allow_short")
SETS = frozenset({"allowed_order_types", "allowed_symbols", "blocked_symbols", "allowed_sessions"})
# The values of those that are words.
_NAMED: dict[str, list[str]] = {
    "offset_mode": RiskLimits.OffsetMode.values,
    "dependents_activation": RiskLimits.DependentsActivation.values,
    "reconcile_mode": RiskLimits.ReconcileMode.values,
}
ACCOUNT_ONLY = frozenset(
    {
        "reconcile_mode",
        "dependents_activation",
        "loosening_needs_approval",
        *(key for key in KEYS if key.startswith("breaker_")),
    }
)


def latest(account_id: int, strategy_id: int | None) -> RiskLimits | None:
    """The newest version of the account's own values, or of one strategy's."""
    return (
        RiskLimits.objects.filter(
            Q(strategy=None) if strategy_id is None else Q(strategy_id=strategy_id),
            account_id=account_id,
        )
        .order_by("-version")
        .first()
    )


def in_force(account_id: int, strategy_id: int | None = None) -> Limits:
    """What holds for a strategy, or for the account as a whole: one query."""
    versions = RiskLimits.objects.filter(account_id=account_id)
    owners: dict[int | None, RiskLimits] = {
        row.strategy_id: row
        for row in versions.order_by("strategy_id", "-version").distinct("strategy_id")
    }
    defaults = Limits()
    values: dict[str, Any] = {key: getattr(defaults, key) for key in _ACCOUNT_OPENS}
    for owner in (None, strategy_id):
        row = owners.get(owner)
        if row is None:
            continue
        for key in KEYS:
            value = getattr(row, key)
            if value in (None, "") or (owner is not None and key in ACCOUNT_ONLY):
                continue
            if key in SETS:
                value = frozenset(value.split(","))
            tighter = _TIGHTER.get(key) if owner is not None and key in values else None
            values[key] = tighter(values[key], value) if tighter else value
        if owner is None and "max_orders_per_minute" in values:
            values["account_orders_per_minute"] = values["max_orders_per_minute"]
        if strategy_id is None:
            break
    return Limits(**values)


def change(
    *,
    account: BrokerAccount,
    strategy: Strategy | None,
    values: dict[str, Any],
    reason: str,
    actor: str,
    author: User | None = None,
) -> RiskLimits:
    """Stores a new version with `values` changed; None empties a value.

    Raises ValidationError, naming each field, when a value is not allowed.
    """
    unknown = sorted(set(values) - set(KEYS))
    if unknown:
        raise ValidationError(
            f"{', '.join(unknown)}: not a limit that this version enforces. "
            f"Known: {', '.join(KEYS)}."
        )
    if strategy is not None and (misplaced := sorted(set(values) & ACCOUNT_ONLY)):
        raise ValidationError(f"{', '.join(misplaced)} is set for the account only.")
    with transaction.atomic():
        BrokerAccount.lock(account.pk)  # two changes at once get two versions, not one
        before = latest(account.pk, strategy.pk if strategy else None)
        row = RiskLimits(account=account, strategy=strategy, reason=reason.strip(), actor=actor)
        row.author = author
        row.version = (
            RiskLimits.objects.filter(account=account, strategy=strategy).aggregate(
                newest=Max("version")
            )["newest"]
            or 0
        ) + 1
        for key in KEYS:
            value = values[key] if key in values else getattr(before, key, None)
            field = RiskLimits._meta.get_field(key)
            if key in _NAMED and value not in (None, "", *_NAMED[key]):
                known = ", ".join(_NAMED[key])
                raise ValidationError(
                    {key: f"{value!r} is not a valid choice: choose from {known}."}
                )
            setattr(row, key, "" if value is None and not field.null else value)
        row.full_clean()
        row.save()
    return row
