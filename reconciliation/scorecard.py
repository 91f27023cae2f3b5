"""The scorecard (SPEC R12): each measure with its value, its target, whether it is met and where
the target comes from.

Pure: counted values in, measures out. Never states a figure where nothing was counted: the value
is then None, and neither met nor missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Final

from reconciliation.scorecard_targets import DAY, PER_CENT, SPECS, Bounds, Spec

WEEK: Final = 5  # trading days
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was counted, of one day or added up over several."""

    days: int = 1
    # Orders that were handed to the broker; of them refused or never answered, and acknowledged.
    sent: int = 0
    errors: int = 0
    acknowledged: int = 0
    refused_for_funds: int = 0
    # Orders that a strategy asked for, replacements not counted anew; those that filled in part.
    signals: int = 0
    executed: int = 0
    # Complete readings of the broker in market hours, and the positions of them all.
    readings: int = 0
    positions_read: int = 0
    # The most that a sector came to, in per cent of equity.
    largest_sector: Decimal | None = None
    # Positions compared in all complete comparisons, and those that differed.
    compared: int = 0
    differed: int = 0
    runs: int = 0
    run_seconds: Decimal = Decimal(0)
    # What people did by hand.
    decisions: int = 0
    halts: int = 0
    hand_orders: int = 0
    rebuilds: int = 0
    # Fills of our own orders, and of orders placed elsewhere.
    fills: int = 0
    external_fills: int = 0
    # Acknowledged orders whose time is known, and the time that 95 % of them kept to.
    timed: int = 0
    p95_ms: Decimal | None = None

    @property
    def interventions(self) -> int:
        return self.decisions + self.halts + self.hand_orders + self.rebuilds


def together(counts: Sequence[Counts], *, timed: int, p95_ms: Decimal | None) -> Counts:
    """Several days as one. A percentile can't be added up: it is given."""
    sectors = [each.largest_sector for each in counts if each.largest_sector is not None]
    added = {
        name: sum(getattr(each, name) for each in counts)
        for name in Counts.__dataclass_fields__
        if name not in ("largest_sector", "timed", "p95_ms", "run_seconds")
    }
    return Counts(
        **added,
        run_seconds=sum((each.run_seconds for each in counts), Decimal(0)),
        largest_sector=max(sectors, default=None),
        timed=timed,
        p95_ms=p95_ms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure of one window. `met` and `beyond` are None where nothing was counted."""

    spec: Spec
    value: Decimal | None
    numerator: Decimal | None
    denominator: Decimal | None
    met: bool | None
    # Whether this is the window over which its guardrail is watched, and whether it is on the
    # wrong side of it, with cases enough to say so.
    is_guarded: bool
    beyond: bool | None


def scorecard(counts: Counts, *, window: str = DAY) -> list[Measure]:
    """All measures of a window, in the order of `SPECS`."""
    return [_measure(spec, counts, window) for spec in SPECS]


def _measure(spec: Spec, counts: Counts, window: str) -> Measure:
    above, below = _parts(spec.key, counts)
    is_guarded = spec.guardrail is not None and window == spec.guarded_over
    value = met = beyond = None
    if above is not None and below != 0:
        exact = Fraction(above) / Fraction(1 if below is None else below)
        exact *= 100 if spec.unit == PER_CENT and below is not None else 1
        value, met = _rounded(exact, spec.target), spec.target.hold(exact)
        if is_guarded and spec.guardrail and _cases(spec.key, counts, below) >= spec.guard_from:
            beyond = not spec.guardrail.hold(exact)
    return Measure(
        spec=spec,
        value=value,
        numerator=above,
        denominator=below,
        met=met,
        is_guarded=is_guarded,
        beyond=beyond,
    )


def _parts(key: str, counts: Counts) -> tuple[Decimal | None, Decimal | None]:
    """Numerator and denominator; without a denominator the value is told as it is."""
    whole: dict[str, tuple[int | Decimal | None, int | Decimal | None]] = {
        "order_error_rate": (counts.errors, counts.sent),
        "signal_to_execution": (counts.executed, counts.signals),
        "acknowledged_share": (counts.acknowledged, counts.sent),
        "refused_for_funds": (counts.refused_for_funds if counts.sent else None, None),
        "positions_held": (counts.positions_read, counts.readings),
        "largest_sector": (counts.largest_sector, None),
        "position_accuracy": (counts.compared - counts.differed, counts.compared),
        "time_to_reconcile": (counts.run_seconds, counts.runs),
        "round_trips_avoided": (None, None),
        # A day alone is held against the week's number, too.
        "manual_interventions": (
            counts.interventions,
            Decimal(max(counts.days, WEEK)) / WEEK if counts.days else 0,
        ),
        "api_share": (counts.fills, counts.fills + counts.external_fills),
        "submission_p95": (counts.p95_ms, None),
    }
    above, below = whole[key]
    return (
        None if above is None else Decimal(above),
        None if below is None else Decimal(below),
    )


def _cases(key: str, counts: Counts, below: Decimal | None) -> Decimal:
    if key == "submission_p95":
        return Decimal(counts.timed)
    if key == "refused_for_funds":
        return Decimal(counts.sent)
    return Decimal(0) if below is None else below


def _rounded(exact: Fraction, target: Bounds) -> Decimal:
    """To hundredths, and never so that what misses its target is shown as meeting it."""
    is_under = target.least is not None and exact < Fraction(target.least)
    rounding = ROUND_FLOOR if target.most is None or is_under else ROUND_CEILING
    return (Decimal(exact.numerator) / Decimal(exact.denominator)).quantize(_CENT, rounding)
