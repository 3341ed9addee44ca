"""What tasks of lm-evaluation-harness measure, by their configuration: known before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_NO_FILTER = "none"


def metrics_of(loaded: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Of tasks and groups as lm-eval loads them, what they measure, called as in benchmarks.py; by name."""
    tasks = {name: tuple(_named(task.aggregation(), _filters([task]))) for name, task in loaded["tasks"].items()}
    groups = {}
    for name, group in loaded.get("groups", {}).items():
        combined = [one.metric for one in group.aggregate_metric_list or ()]
        groups[name] = tuple(_named(combined, _filters(group.get_all_tasks())))
    return {**groups, **tasks}


def _filters(tasks: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(one.name for task in tasks for one in task._filters))


def _named(metrics: Iterable[str], filters: Sequence[str]) -> Iterator[str]:
    for one in metrics:
        for of_filter in filters:
            yield one if of_filter == _NO_FILTER else f"{one}/{of_filter}"
