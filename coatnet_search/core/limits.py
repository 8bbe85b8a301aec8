"""Limits on metrics: a number or a pair [low, high] -> (low, high)."""

from collections.abc import Mapping
from types import MappingProxyType

Limit = float | tuple[float | None, float | None]


def limit_pair(limit: Limit, sense: str = "min") -> tuple[float | None, float | None]:
    """A limit as (low, high): a number bounds costs from above and metrics that are maximised from below."""
    if isinstance(limit, (int, float)):
        return (limit, None) if sense == "max" else (None, limit)
    low, high = limit
    return low, high


def tightest(one: Limit, other: Limit) -> Limit:
    """Both limits of a cost as one [low, high]."""
    pairs = (limit_pair(one), limit_pair(other))
    lows = [low for low, _ in pairs if low is not None]
    highs = [high for _, high in pairs if high is not None]
    return max(lows, default=None), min(highs, default=None)


def limit_problems(
    limits: Mapping[str, Limit],
    metrics: Mapping[str, float | None],
    senses: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Which limits the metrics break, as sentences; ``senses`` says which are maximised. What is not known breaks
    nothing."""
    reasons = []
    for name, limit in limits.items():
        value = metrics.get(name)
        if value is None:
            continue
        low, high = limit_pair(limit, senses.get(name, "min"))
        if low is not None and value < low:
            reasons.append(f"{name} {value:.6g} is under the limit {low:.6g}")
        if high is not None and value > high:
            reasons.append(f"{name} {value:.6g} is over the limit {high:.6g}")
    return reasons
