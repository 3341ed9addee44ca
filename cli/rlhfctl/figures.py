"""Numbers as people read them: the same in the terminal and in the report."""

from __future__ import annotations

from datetime import UTC, datetime

from rlhf_api.metrics import MetricValue


def number(value: float) -> str:
    """Three figures that count: 0.123, 12.3, 1,234."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size == 0 or size >= 0.001:
        return f"{value:.3f}"
    return f"{value:.1e}"


def with_interval(value: MetricValue | None) -> str:
    """`0.612 [0.571, 0.655]`; a hyphen where there is no value."""
    if value is None:
        return "-"
    if value.lower is None or value.upper is None:
        return number(value.value)
    return f"{number(value.value)} [{number(value.lower)}, {number(value.upper)}]"


def fixed(value: MetricValue | None, digits: int) -> str:
    """For a column: the same decimals in every row."""
    return "-" if value is None else f"{value.value:,.{digits}f}"


def duration(seconds: float) -> str:
    """`4 s`, `1 min 15 s`, `2 h 03 min`, `3 d 04 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def between(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return "-"
    return duration((end - start).total_seconds())


def clock(moment: datetime | None) -> str:
    """A time of day and a date that need no zone to be guessed."""
    return "-" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def stamp(moment: datetime) -> str:
    """For a line of a log: `2026-01-31T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compact(seconds: float) -> str:
    """For tables: `4s`, `1m15s`, `2h03m`, `3d04h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def plural(count: int, noun: str) -> str:
    """`1 iteration`, `3 iterations`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def count(value: float) -> str:
    """`1,200`, and `0.5` for what is no whole number."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
