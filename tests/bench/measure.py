"""How timings are taken and told."""

import statistics
import time
from collections.abc import Callable, Sequence


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def told(what: str, values: Sequence[float], unit: str = "ms") -> None:
    """P50 and P95; seconds are told in milliseconds."""
    scale = 1000 if unit == "ms" else 1
    p50, p95 = statistics.median(values) * scale, statistics.quantiles(values, n=20)[18] * scale
    print(f"{what:44} P50 {p50:7.2f} {unit:2}  P95 {p95:7.2f} {unit}")  # noqa: T201


def beside(what: str, own: Sequence[float], floor_of: str, floor: Sequence[float]) -> None:
    """Both, and their ratios: of each pair, and of the two P95."""
    told(what, own)
    told(f"  floor: {floor_of}", floor)
    told("  ratio", [a / b for a, b in zip(own, floor, strict=True)], "")
    at_95 = [statistics.quantiles(values, n=20)[18] for values in (own, floor)]
    print(f"  P95 over P95{at_95[0] / at_95[1]:37.2f}")  # noqa: T201
