"""What each measure of the scorecard is to come to, by which document, and beyond what somebody is
told. Values only.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

# The documents that the targets come from: broker-state synchronisation, the foundation of order
# management, the plan to fix order placement.
B, F, P = "B", "F", "P"
# Windows in trading days; the first is the day itself.
DAY, FIVE_DAYS, TWENTY_DAYS = "day", "five_days", "twenty_days"
WINDOWS: Final = {DAY: 1, FIVE_DAYS: 5, TWENTY_DAYS: 20}

PER_CENT, SECONDS, MILLISECONDS, NUMBER = "%", "s", "ms", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a value is to keep to: at least, at most; `strict` leaves the bound itself out."""

    least: Decimal | None = None
    most: Decimal | None = None
    strict: bool = False

    def hold(self, value: Fraction | Decimal) -> bool:
        exact = Fraction(value)
        over = self.most is not None and exact > Fraction(self.most)
        under = self.least is not None and exact < Fraction(self.least)
        at_the_bound = self.strict and exact in {
            Fraction(bound) for bound in (self.least, self.most) if bound is not None
        }
        return not (over or under or at_the_bound)

    def words(self, unit: str) -> str:
        """Less than 5 %; 10 to 15."""
        after = f" {unit}" if unit else ""
        if self.least is not None and self.most is not None:
            return f"{self.least:f} to {self.most:f}{after}"
        sign = {(True, True): "<", (True, False): "≤", (False, True): ">", (False, False): "≥"}
        bound = self.most if self.most is not None else self.least
        return f"{sign[self.most is not None, self.strict]} {bound:f}{after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A measure: what it is called, what it is to be, and beyond what somebody is told."""

    key: str
    title: str
    unit: str
    source: str
    target: Bounds
    guardrail: Bounds | None = None
    # Cases from which on the guardrail counts: one failure of three orders says nothing yet.
    guard_from: int = 20
    guarded_over: str = DAY
    note: str = ""


def _at_most(value: str, *, strict: bool = False) -> Bounds:
    return Bounds(most=Decimal(value), strict=strict)


def _at_least(value: str, *, strict: bool = False) -> Bounds:
    return Bounds(least=Decimal(value), strict=strict)


# The guardrail is the source's where it names one; else the target.
SPECS: Final = (
    Spec(
        key="order_error_rate",
        title="Order error rate",
        unit=PER_CENT,
        source=B,
        target=_at_most("5", strict=True),
        guardrail=_at_most("5", strict=True),
        note="Refused by the broker or never answered, of the orders sent.",
    ),
    Spec(
        key="signal_to_execution",
        title="Signals executed",
        unit=PER_CENT,
        source=B,
        target=_at_least("80", strict=True),
        guardrail=_at_least("80", strict=True),
        note="Filled at least in part, of the orders that strategies asked for.",
    ),
    Spec(
        key="acknowledged_share",
        title="Orders acknowledged",
        unit=PER_CENT,
        source=F,
        target=_at_least("99"),
        guardrail=_at_least("97"),
        note="Taken by the broker, of the orders sent.",
    ),
    Spec(
        key="refused_for_funds",
        title="Refused for want of buying power",
        unit=NUMBER,
        source=P,
        target=_at_most("0"),
        guardrail=_at_most("0"),
        guard_from=1,
        note="Orders that the broker refused for funds although our figures said there were some.",
    ),
    Spec(
        key="positions_held",
        title="Positions held on average",
        unit=NUMBER,
        source=B,
        target=Bounds(least=Decimal(10), most=Decimal(15)),
        guardrail=_at_most("15"),
        note="Mean of the complete readings in market hours. Only too many alert.",
    ),
    Spec(
        key="largest_sector",
        title="Largest sector",
        unit=PER_CENT,
        source=B,
        target=_at_most("30"),
        guardrail=_at_most("30"),
        guard_from=0,
        note="Of equity, as the positions stood when the report was made.",
    ),
    Spec(
        key="position_accuracy",
        title="Position accuracy",
        unit=PER_CENT,
        source=B,
        target=_at_least("100"),
        # A fill on its way differs for one look, as it must: only more than that alerts.
        guardrail=_at_least("99"),
        note="Positions that agreed, of those compared in complete comparisons.",
    ),
    Spec(
        key="time_to_reconcile",
        title="Time to reconcile",
        unit=SECONDS,
        source=P,
        target=_at_most("5", strict=True),
        guardrail=_at_most("5", strict=True),
        note="Mean length of the complete comparisons.",
    ),
    Spec(
        key="round_trips_avoided",
        title="Round trips avoided",
        unit=PER_CENT,
        source=P,
        target=_at_least("90"),
        note="Not measured yet: nothing rebalances.",
    ),
    Spec(
        key="manual_interventions",
        title="Manual interventions a week",
        unit=NUMBER,
        source=F,
        target=_at_most("1"),
        guardrail=_at_most("3"),
        guard_from=0,
        guarded_over=FIVE_DAYS,
        note="Corrections decided, halts, rebuilds and orders by hand.",
    ),
    Spec(
        key="api_share",
        title="Fills through Ordinis",
        unit=PER_CENT,
        source=F,
        target=_at_least("95"),
        guardrail=_at_least("90"),
        note="Of all fills at the broker, those of orders placed here.",
    ),
    Spec(
        key="submission_p95",
        title="Submission, 95th percentile",
        unit=MILLISECONDS,
        source=F,
        target=_at_most("750"),
        guardrail=_at_most("1500"),
        note="From the checks passed to the broker's acknowledgement.",
    ),
)
