"""One line for a stage at work: bar, how far, how fast, how long still."""

from __future__ import annotations

from rlhf_operator.local import Progress
from rlhfctl import figures

from .rates import Rate

BAR = 20


def text(progress: Progress, rate: Rate) -> str:
    """`320/600 steps  10.4/s  27s left  loss 0.53`."""
    total = f"/{figures.count(progress.total)}" if progress.total is not None else ""
    parts = [f"{figures.count(progress.done)}{total} {progress.unit}".rstrip()]
    if rate.per_second is not None:
        parts.append(f"{figures.number(rate.per_second)}/s")
    left = rate.seconds_left(progress)
    if left is not None:
        parts.append(f"{figures.compact(left)} left")
    if progress.shards > 1:
        parts.append(f"{progress.shards_done}/{progress.shards} shards")
    return "  ".join([*parts, progress.detail] if progress.detail else parts)


def bar(progress: Progress, *, unicode: bool) -> str:
    """A bar of fixed width; empty where the total is not known."""
    if not progress.total:
        return ""
    full = round(BAR * min(1.0, progress.done / progress.total))
    on, off = ("━", "─") if unicode else ("#", "-")
    return on * full + off * (BAR - full)
