"""Gates: conditions on an iteration's metrics. A gate trips only when the whole interval is beyond its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isclose

from rlhf_api.metrics import BenchmarkMetric, BenchmarkValue, Metric, MetricValue
from rlhf_api.resource.evaluation import Approval, Gate, GateAction, Mode, Plateau, Selection
from rlhf_api.resource.status import GateStatus, GateVerdict

Metrics = Mapping[Metric, MetricValue]
Benchmarks = Sequence[BenchmarkValue]

#: For plateaus, where the metric is not the one of `selection` (whose mode says it).
LESS_IS_BETTER = frozenset(
    {
        Metric.KL_TO_INITIAL,
        Metric.KL_TO_INITIAL_PER_TOKEN,
        Metric.MEAN_LENGTH,
        Metric.MEAN_LENGTH_RATIO_VS_INITIAL,
        Metric.CLIPPED_SHARE,
        Metric.TRAIN_LOSS,
        Metric.GRAD_NORM,
        Metric.GPU_SECONDS,
        Metric.QUEUE_SECONDS,
        Metric.WALL_SECONDS,
        Metric.LOST_GPU_SECONDS,
    }
)


@dataclass(frozen=True)
class _Series:
    """What a gate looks at, of iterations 1..t; None where one did not report it."""

    name: str
    values: Sequence[MetricValue | None]
    less_is_better: bool
    initial: MetricValue | None = None
    """Of a benchmark: pi_0's."""


def verdicts(
    gates: Sequence[Gate],
    selection: Selection,
    iterations: Sequence[Metrics],
    approvals: Sequence[Approval],
    benchmarks: Sequence[Benchmarks] = (),
) -> tuple[GateStatus, ...]:
    """Every gate's verdict on iteration t = len(iterations); `iterations` are the metrics of iterations 1..t, without pi_0.

    `benchmarks` are those of pi_0..pi_t, empty where no gate reads any.
    """
    return tuple(_verdict(gate, _series(gate, selection, iterations, benchmarks), approvals) for gate in gates)


def has_tripped(statuses: Sequence[GateStatus], action: GateAction) -> bool:
    """Some gate with this action tripped and was not approved."""
    return any(status.action is action and status.verdict is GateVerdict.TRIPPED for status in statuses)


def wait_for_benchmark(gates: Sequence[Gate], iterate: int) -> bool:
    """The benchmark of pi_k is in the chain: a gate reads it. pi_0's is read only to be compared with."""
    return any(gate.benchmark is not None and (iterate > 0 or gate.max_drop is not None) for gate in gates)


def _series(gate: Gate, selection: Selection, iterations: Sequence[Metrics], benchmarks: Sequence[Benchmarks]) -> _Series:
    if gate.benchmark is None:
        metric = gate.metric
        assert metric is not None  # noqa: S101 - a gate has one of both
        return _Series(metric.value, [metrics.get(metric) for metrics in iterations], _less_is_better(metric, selection))
    found = [_found(gate.benchmark, reported) for reported in benchmarks] or [None] * (len(iterations) + 1)
    less_is_better = any(value.less_is_better for value in found if value is not None)
    return _Series(str(gate.benchmark), found[1:], less_is_better, found[0])


def _found(wanted: BenchmarkMetric, reported: Benchmarks) -> BenchmarkValue | None:
    return next((value for value in reported if (value.task, value.metric) == (wanted.task, wanted.metric)), None)


def _verdict(gate: Gate, series: _Series, approvals: Sequence[Approval]) -> GateStatus:
    iteration = len(series.values)
    if gate.plateau is not None:
        verdict, message = _plateau(gate.plateau, series)
    elif gate.max_drop is not None:
        verdict, message = _drop(gate.max_drop, series)
    else:
        verdict, message = _bounds(gate, series)
    approved = any(entry.gate == gate.name and entry.iteration == iteration for entry in approvals)
    if verdict is GateVerdict.TRIPPED and gate.action is GateAction.PAUSE and approved:
        verdict, message = GateVerdict.APPROVED, f"{message} An entry in spec.approvals lets the run go on."
    return GateStatus(name=gate.name, verdict=verdict, action=gate.action, message=message)


def _bounds(gate: Gate, series: _Series) -> tuple[GateVerdict, str]:
    iteration, measured = len(series.values), series.values[-1]
    if measured is None:
        return GateVerdict.NOT_EVALUATED, f"Iteration {iteration} reported no {series.name}."
    upper = measured.value if measured.upper is None else measured.upper
    lower = measured.value if measured.lower is None else measured.lower
    told = f"{series.name} {_shown(measured)} of iteration {iteration}"
    if gate.min is not None and upper < gate.min:
        return GateVerdict.TRIPPED, f"{told} is below min {gate.min:g}."
    if gate.max is not None and lower > gate.max:
        return GateVerdict.TRIPPED, f"{told} is above max {gate.max:g}."
    return GateVerdict.PASSED, f"{told} is within its bound."


def _drop(most: float, series: _Series) -> tuple[GateVerdict, str]:
    """How much worse than pi_0, with the interval of a difference of independent figures: both answer the same questions, so it is
    too wide rather than too narrow."""
    iteration, measured, initial = len(series.values), series.values[-1], series.initial
    if measured is None or initial is None:
        missing = f"Iteration {iteration}" if measured is None else "pi_0"
        return GateVerdict.NOT_EVALUATED, f"{missing} reported no {series.name}."
    sign = -1.0 if series.less_is_better else 1.0
    drop = sign * (initial.value - measured.value)
    told = f"{series.name} {_shown(measured)} of iteration {iteration} is {max(drop, 0.0):.4g} worse than pi_0's {_shown(initial)}"
    if drop - hypot(_half(initial), _half(measured)) > most:
        return GateVerdict.TRIPPED, f"{told}: by more than maxDrop {most:g}, also at the lower bound of the difference."
    return GateVerdict.PASSED, f"{told}: not surely more than maxDrop {most:g}."


def _half(measured: MetricValue) -> float:
    """Of the interval."""
    return 0.0 if measured.lower is None or measured.upper is None else (measured.upper - measured.lower) / 2


def _plateau(plateau: Plateau, series: _Series) -> tuple[GateVerdict, str]:
    """Best of the last k - best before them < minDelta, from iteration k + 1 on, on point values (api.md)."""
    k, name = plateau.iterations, series.name
    if len(series.values) <= k:
        return GateVerdict.NOT_EVALUATED, f"A plateau over {k} iterations can be seen from iteration {k + 1} on."
    sign = -1.0 if series.less_is_better else 1.0
    values = [None if measured is None else sign * measured.value for measured in series.values]
    newest = [value for value in values[-k:] if value is not None]
    before = [value for value in values[:-k] if value is not None]
    if not newest or not before:
        return GateVerdict.NOT_EVALUATED, f"Too few of the iterations reported {name}."
    gain = max(newest) - max(before)
    delta = plateau.min_delta
    message = f"The best {name} of the last {k} iterations is {gain:.4g} better than the best before them (minDelta {delta:g})."
    return (GateVerdict.TRIPPED if gain < delta and not isclose(gain, delta) else GateVerdict.PASSED), message


def _less_is_better(metric: Metric, selection: Selection) -> bool:
    return selection.mode is Mode.MIN if metric is selection.metric else metric in LESS_IS_BETTER


def _shown(measured: MetricValue) -> str:
    if measured.lower is None or measured.upper is None:
        return f"{measured.value:.4g}"
    return f"{measured.value:.4g} [{measured.lower:.4g}, {measured.upper:.4g}]"
