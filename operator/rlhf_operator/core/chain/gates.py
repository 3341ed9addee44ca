"""Gates: conditions on an iteration's metrics. A gate trips only when the whole interval is beyond its bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isclose

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.evaluation import Approval, Gate, GateAction, Mode, Selection
from rlhf_api.resource.status import GateStatus, GateVerdict

Metrics = Mapping[Metric, MetricValue]

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


def verdicts(
    gates: Sequence[Gate], selection: Selection, iterations: Sequence[Metrics], approvals: Sequence[Approval]
) -> tuple[GateStatus, ...]:
    """Every gate's verdict on iteration t = len(iterations); `iterations` are the metrics of iterations 1..t, without pi_0."""
    return tuple(_verdict(gate, selection, iterations, approvals) for gate in gates)


def has_tripped(statuses: Sequence[GateStatus], action: GateAction) -> bool:
    """Some gate with this action tripped and was not approved."""
    return any(status.action is action and status.verdict is GateVerdict.TRIPPED for status in statuses)


def _verdict(gate: Gate, selection: Selection, iterations: Sequence[Metrics], approvals: Sequence[Approval]) -> GateStatus:
    if gate.plateau is not None:
        verdict, message = _plateau(gate, _less_is_better(gate.metric, selection), iterations)
    else:
        verdict, message = _bounds(gate, iterations[-1], len(iterations))
    approved = any(entry.gate == gate.name and entry.iteration == len(iterations) for entry in approvals)
    if verdict is GateVerdict.TRIPPED and gate.action is GateAction.PAUSE and approved:
        verdict, message = GateVerdict.APPROVED, f"{message} An entry in spec.approvals lets the run go on."
    return GateStatus(name=gate.name, verdict=verdict, action=gate.action, message=message)


def _bounds(gate: Gate, metrics: Metrics, iteration: int) -> tuple[GateVerdict, str]:
    measured = metrics.get(gate.metric)
    if measured is None:
        return GateVerdict.NOT_EVALUATED, f"Iteration {iteration} reported no {gate.metric.value}."
    upper = measured.value if measured.upper is None else measured.upper
    lower = measured.value if measured.lower is None else measured.lower
    if gate.min is not None and upper < gate.min:
        return GateVerdict.TRIPPED, f"{_shown(gate.metric, measured)} of iteration {iteration} is below min {gate.min:g}."
    if gate.max is not None and lower > gate.max:
        return GateVerdict.TRIPPED, f"{_shown(gate.metric, measured)} of iteration {iteration} is above max {gate.max:g}."
    return GateVerdict.PASSED, f"{_shown(gate.metric, measured)} of iteration {iteration} is within its bound."


def _plateau(gate: Gate, less_is_better: bool, iterations: Sequence[Metrics]) -> tuple[GateVerdict, str]:
    """Best of the last k - best before them < minDelta, from iteration k + 1 on, on point values (api.md)."""
    assert gate.plateau is not None  # noqa: S101 - the caller looked
    k, name = gate.plateau.iterations, gate.metric.value
    if len(iterations) <= k:
        return GateVerdict.NOT_EVALUATED, f"A plateau over {k} iterations can be seen from iteration {k + 1} on."
    sign = -1.0 if less_is_better else 1.0
    values = [None if gate.metric not in metrics else sign * metrics[gate.metric].value for metrics in iterations]
    newest = [value for value in values[-k:] if value is not None]
    before = [value for value in values[:-k] if value is not None]
    if not newest or not before:
        return GateVerdict.NOT_EVALUATED, f"Too few of the iterations reported {name}."
    gain = max(newest) - max(before)
    delta = gate.plateau.min_delta
    message = f"The best {name} of the last {k} iterations is {gain:.4g} better than the best before them (minDelta {delta:g})."
    return (GateVerdict.TRIPPED if gain < delta and not isclose(gain, delta) else GateVerdict.PASSED), message


def _less_is_better(metric: Metric, selection: Selection) -> bool:
    return selection.mode is Mode.MIN if metric is selection.metric else metric in LESS_IS_BETTER


def _shown(metric: Metric, measured: MetricValue) -> str:
    if measured.lower is None or measured.upper is None:
        return f"{metric.value} {measured.value:.4g}"
    return f"{metric.value} {measured.value:.4g} [{measured.lower:.4g}, {measured.upper:.4g}]"
