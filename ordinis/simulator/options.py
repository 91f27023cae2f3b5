"""What can be tuned while the simulator runs.

Durations are seconds. None of these change what is right, only how fast and how fully things
happen, and which of the venue's habits hold where they are contested; faults, which do things wrong
on purpose, are in `faults`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(slots=True)
class Options:
    new_delay: float = 0.05  # from accepted to acknowledged by the venue
    fill_delay: float = 0.05  # from acknowledged, or a partial fill, to the next execution
    cancel_delay: float = 0.05
    replace_delay: float = 0.05
    latency: float = 0.0  # of every REST answer, half before and half after it takes effect
    tick_seconds: float = 0.25
    position_lag: float = 0.0  # positions are listed as they were this long ago
    partial_fill_probability: float = 0.0
    rate_limit: int = 1_000_000  # requests a minute and key; 0 is none
    stream_limit: int = 0  # connections to the stream at once; 0 is no limit
    sse: bool = True  # whether there are event sources; without, they are 404
    sse_heartbeat: float = 15.0  # between two signs of life of a quiet event source
    # Buying power is 4 x (equity - margin held). "intraday" holds 25 % of each position, so that
    # a fill ties up exactly what its open order did; "maintenance" holds maintenance_margin.
    buying_power_margin: str = "intraday"
    cat_fee: bool = False  # whether a buy must be able to pay $0.000003 a share on top
    extended_hours_gtc: bool = True  # Alpaca's own texts contradict each other here
    done_for_day: bool = False  # whether the close tells it, before day orders expire

    def change(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError, having changed nothing, for an unknown name or a bad value."""
        kinds = {field.name: field.type for field in fields(self)}
        accepted: dict[str, Any] = {}
        for name, value in values.items():
            kind = kinds.get(name)
            if kind is None:
                raise ValueError(f"no option {name!r}; there are: {', '.join(sorted(kinds))}")
            if name == "buying_power_margin":
                if value not in {"intraday", "maintenance"}:
                    raise ValueError("buying_power_margin is intraday or maintenance")
                accepted[name] = value
                continue
            if kind is bool:
                if not isinstance(value, bool):
                    raise ValueError(f"{name} is true or false")
                accepted[name] = value
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"{name} must be a number, 0 or more")
            if name == "partial_fill_probability" and value > 1:
                raise ValueError("partial_fill_probability must be at most 1")
            if name in {"tick_seconds", "sse_heartbeat"} and value < 0.001:
                raise ValueError(f"{name} must be at least 0.001")
            accepted[name] = int(value) if kind is int else float(value)
        for name, value in accepted.items():
            setattr(self, name, value)

    def dump(self) -> dict[str, Any]:
        return asdict(self)
