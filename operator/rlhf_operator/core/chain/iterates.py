"""Which policy the words Latest, Previous, Best, Initial and Number mean in iteration t (the table in docs/api.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import GateAction, Mode, Selection
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.resource.sampling import IterateRef, IterateType
from rlhf_api.resource.status import GateStatus
from rlhf_api.words import StageName

from .gates import has_tripped, verdicts, wait_for_benchmark
from .history import History

#: pi_0 compared with itself, where its evaluation does not report it.
INITIAL_BY_DEFINITION: dict[Metric, float] = {
    Metric.WIN_RATE_VS_INITIAL: 0.5,
    Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL: 0.5,
    Metric.KL_TO_INITIAL: 0.0,
    Metric.KL_TO_INITIAL_PER_TOKEN: 0.0,
    Metric.MEAN_LENGTH_RATIO_VS_INITIAL: 1.0,
}


@dataclass(frozen=True)
class Iterate:
    """pi_k, evaluated and, where gates read its benchmark, benchmarked."""

    number: int
    metrics: Mapping[Metric, MetricValue]
    gates: tuple[GateStatus, ...] = ()
    discarded: bool = False
    """By a Rollback: no more Latest, Previous or Best; {type: Number} still finds it."""


@dataclass(frozen=True)
class Iterates:
    """pi_0 … pi_n, all that are evaluated, and the iterate from which each iteration started."""

    known: tuple[Iterate, ...]
    starts: tuple[int, ...]
    """starts[t - 1] = the iterate that iteration t starts from, for t = 1 … n + 1: Latest."""
    selection: Selection

    def latest(self, iteration: int) -> int:
        """Where iteration t starts: pi_{t-1}, or after a Rollback the one rolled back to."""
        return self.starts[iteration - 1]

    def previous_latest(self, iteration: int) -> int:
        """What `latest` was in iteration t - 1; pi_0 for t = 1."""
        return 0 if iteration == 1 else self.starts[iteration - 2]

    def best(self, iteration: int) -> int:
        """The best of pi_0 … pi_{t-1}."""
        return best_iterate(self.known[:iteration], self.selection)

    def resolve(self, reference: IterateRef, iteration: int) -> int:
        """The number of the iterate that a mixture entry of iteration t samples from."""
        match reference.type:
            case IterateType.INITIAL:
                return 0
            case IterateType.LATEST:
                return self.latest(iteration)
            case IterateType.PREVIOUS:
                return self.previous_latest(iteration)
            case IterateType.BEST:
                return self.best(iteration)
            case IterateType.NUMBER:
                # Validation bounds k by t - 1 only where it can: an entry for pi_2 samples from the newest in iterations 1 and 2.
                return min(reference.iteration or 0, iteration - 1)


def iterates(spec: RLHFRunSpec, history: History) -> Iterates:
    """Everything that the history tells of the run's iterates."""
    known: list[Iterate] = []
    starts = [0]
    if _is_measured(spec, history, 0):
        known.append(Iterate(0, _initial_metrics(history)))
        by_iteration: list[Mapping[Metric, MetricValue]] = []
        benchmarks = [history.benchmarks(None)]
        while _is_measured(spec, history, len(known)):
            number = len(known)
            by_iteration.append(history.iteration_metrics(number))
            benchmarks.append(history.benchmarks(number))
            statuses = verdicts(spec.gates, spec.selection, by_iteration, spec.approvals, benchmarks)
            discarded = has_tripped(statuses, GateAction.ROLLBACK)
            known.append(Iterate(number, by_iteration[-1], statuses, discarded))
            starts.append(best_iterate(known, spec.selection) if discarded else number)
    return Iterates(tuple(known), tuple(starts), spec.selection)


def best_iterate(known: Sequence[Iterate], selection: Selection) -> int:
    """The best by `selection`, on point values, discarded ones left out; of equals the earliest. pi_0 if none has the metric."""
    best = 0
    best_value: float | None = None
    for iterate in known:
        measured = iterate.metrics.get(selection.metric)
        if iterate.discarded or measured is None:
            continue
        value = measured.value if selection.mode is Mode.MAX else -measured.value
        if best_value is None or value > best_value:
            best, best_value = iterate.number, value
    return best


def _is_measured(spec: RLHFRunSpec, history: History, number: int) -> bool:
    """All that its gates read is there."""
    stages = [StageName.EVALUATE, *([StageName.BENCHMARK] if wait_for_benchmark(spec.gates, number) else [])]
    return all(history.find(number or None, stage) is not None for stage in stages)


def _initial_metrics(history: History) -> dict[Metric, MetricValue]:
    by_definition = {metric: MetricValue(value=value) for metric, value in INITIAL_BY_DEFINITION.items()}
    return {**by_definition, **history.iteration_metrics(None)}
