"""The iterates of a run and their metrics, from its status."""

from __future__ import annotations

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.status import IterationStatus, RLHFRunStatus, StageStatus
from rlhf_api.words import StageName

#: What a person looks at first, beside the win rate. An iterate that has none of it is not shown.
HEADLINE = (Metric.JUDGE_MEAN, Metric.REWARD_MEAN, Metric.KL_TO_INITIAL, Metric.MEAN_LENGTH, Metric.TRAIN_LOSS)


def iterates(status: RLHFRunStatus) -> list[tuple[int, dict[Metric, MetricValue]]]:
    """pi_0 and the iterates that have metrics, with the metrics of their iteration and of its stages."""
    found: list[tuple[int, dict[Metric, MetricValue]]] = []
    initial = initial_evaluation(status)
    if initial is not None and initial.metrics:
        found.append((0, dict(initial.metrics)))
    for iteration in sorted(status.iterations, key=lambda item: item.number):
        metrics = iteration_metrics(iteration)
        if any(metric in metrics for metric in (Metric.WIN_RATE_VS_INITIAL, *HEADLINE)):
            found.append((iteration.number, metrics))
    return found


def iteration_metrics(iteration: IterationStatus) -> dict[Metric, MetricValue]:
    merged: dict[Metric, MetricValue] = {}
    for stage in iteration.stages:
        merged.update(stage.metrics)
    merged.update(iteration.metrics)
    return merged


def initial_evaluation(status: RLHFRunStatus) -> StageStatus | None:
    return next((stage for stage in status.stages if stage.name == StageName.EVALUATE), None)
