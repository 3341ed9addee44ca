"""Gates, as docs/api.md defines them."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.metrics import BenchmarkValue, Metric, MetricValue
from rlhf_api.resource.evaluation import Approval, Gate, GateAction, Selection
from rlhf_api.resource.status import GateStatus, GateVerdict
from rlhf_operator.core.chain.gates import has_tripped, verdicts

TRIPPED, PASSED, NOT_EVALUATED, APPROVED = (
    GateVerdict.TRIPPED,
    GateVerdict.PASSED,
    GateVerdict.NOT_EVALUATED,
    GateVerdict.APPROVED,
)


def gate(metric: str, action: str = "Stop", **bound: Any) -> Gate:
    return Gate.model_validate({"name": "it", "metric": metric, "action": action, **bound})


def verdict(tested: Gate, *values: MetricValue | float | None, selection: Selection | None = None) -> GateVerdict:
    """Of the newest of these iterations; None: it did not report the metric."""
    metric = tested.metric
    assert metric is not None
    iterations = [
        {} if value is None else {metric: value if isinstance(value, MetricValue) else MetricValue(value=value)} for value in values
    ]
    return verdicts([tested], selection or Selection(), iterations, [])[0].verdict


@pytest.mark.parametrize(
    ("bound", "value", "expected"),
    [
        ({"max": 50.0}, MetricValue(value=60, lower=51, upper=70), TRIPPED),
        ({"max": 50.0}, MetricValue(value=60, lower=49, upper=70), PASSED),
        ({"max": 50.0}, MetricValue(value=50.1), TRIPPED),
        ({"max": 50.0}, MetricValue(value=50.0), PASSED),
        ({"min": 0.45}, MetricValue(value=0.40, lower=0.3, upper=0.44), TRIPPED),
        ({"min": 0.45}, MetricValue(value=0.40, lower=0.3, upper=0.46), PASSED),
        ({"min": 0.45}, MetricValue(value=0.449), TRIPPED),
        ({"min": 0.45}, MetricValue(value=0.45), PASSED),
        ({"max": 50.0}, None, NOT_EVALUATED),
    ],
)
def test_a_bound_trips_only_when_the_whole_interval_is_beyond_it(
    bound: dict[str, Any], value: MetricValue | None, expected: GateVerdict
) -> None:
    assert verdict(gate("klToInitial", **bound), value) is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.6, 0.6], NOT_EVALUATED),
        ([0.60, 0.61, 0.605], PASSED),
        ([0.60, 0.609, 0.605], TRIPPED),
        ([0.60, 0.59, 0.58], TRIPPED),
        ([0.60, 0.70, 0.705, 0.70], TRIPPED),
        ([0.50, 0.56, 0.50, 0.57], PASSED),
        ([0.60, 0.70, 0.71, 0.72], PASSED),
        ([0.60, None, None], NOT_EVALUATED),
        ([None, 0.60, 0.61], NOT_EVALUATED),
        ([0.60, None, 0.62], PASSED),
    ],
)
def test_a_plateau_compares_the_best_of_the_last_k_with_the_best_before(values: list[float | None], expected: GateVerdict) -> None:
    assert verdict(gate("winRateVsInitial", plateau={"iterations": 2, "minDelta": 0.01}), *values) is expected


def test_a_plateau_uses_point_values_and_no_intervals() -> None:
    wide = [MetricValue(value=0.6, lower=0.0, upper=1.0), MetricValue(value=0.6, lower=0.0, upper=1.0)]
    assert verdict(gate("winRateVsInitial", plateau={"iterations": 1, "minDelta": 0.01}), *wide) is TRIPPED


def test_a_plateau_turns_the_sign_where_less_is_better() -> None:
    falling = [2.0, 1.0]
    assert verdict(gate("trainLoss", plateau={"iterations": 1, "minDelta": 0.5}), *falling) is PASSED
    assert verdict(gate("rewardMean", plateau={"iterations": 1, "minDelta": 0.5}), *falling) is TRIPPED
    fewest = Selection.model_validate({"metric": "rewardMean", "mode": "Min"})
    assert verdict(gate("rewardMean", plateau={"iterations": 1, "minDelta": 0.5}), *falling, selection=fewest) is PASSED


def test_an_approval_is_for_one_gate_in_one_iteration_and_only_for_pauses() -> None:
    metrics = [{Metric.KL_TO_INITIAL: MetricValue(value=99)}]
    approvals = [Approval(gate="it", iteration=1)]
    for action, expected in ((GateAction.PAUSE, APPROVED), (GateAction.STOP, TRIPPED), (GateAction.ROLLBACK, TRIPPED)):
        statuses = verdicts([gate("klToInitial", action, max=50.0)], Selection(), metrics, approvals)
        assert statuses[0].verdict is expected
        assert has_tripped(statuses, action) is (expected is TRIPPED)
    other = [Approval(gate="it", iteration=2), Approval(gate="another", iteration=1)]
    assert verdicts([gate("klToInitial", "Pause", max=50.0)], Selection(), metrics, other)[0].verdict is TRIPPED


def test_the_message_says_what_was_measured_and_the_bound() -> None:
    metrics = [{Metric.KL_TO_INITIAL: MetricValue(value=60, lower=55, upper=66)}]
    [status] = verdicts([gate("klToInitial", max=50.0)], Selection(), metrics, [])
    assert status.message == "klToInitial 60 [55, 66] of iteration 1 is above max 50."


def benchmark(value: float, half: float | None = 0.02, *, less: bool = False) -> list[BenchmarkValue]:
    ends = {} if half is None else {"lower": value - half, "upper": value + half}
    return [BenchmarkValue(task="gsm8k", metric="exact_match", value=value, less_is_better=less, **ends)]


def of_benchmark(*benchmarks: list[BenchmarkValue], **bound: Any) -> GateStatus:
    """The newest verdict; the first of `benchmarks` is pi_0's."""
    tested = Gate.model_validate(
        {"name": "it", "benchmark": {"task": "gsm8k", "metric": "exact_match"}, "action": "Rollback", **bound}
    )
    return verdicts([tested], Selection(), [{}] * (len(benchmarks) - 1), [], benchmarks)[0]


@pytest.mark.parametrize(
    ("bound", "initial", "newest", "expected"),
    [
        ({"min": 0.5}, [], benchmark(0.47), TRIPPED),
        ({"min": 0.5}, [], benchmark(0.49), PASSED),
        ({"max": 0.5}, [], benchmark(0.53), TRIPPED),
        ({"min": 0.5}, benchmark(0.6), [], NOT_EVALUATED),
        ({"maxDrop": 0.02}, benchmark(0.60), benchmark(0.54), TRIPPED),
        ({"maxDrop": 0.02}, benchmark(0.60), benchmark(0.56), PASSED),
        ({"maxDrop": 0.02}, benchmark(0.60), benchmark(0.70), PASSED),
        ({"maxDrop": 0.02}, benchmark(0.60, None), benchmark(0.57, None), TRIPPED),
        ({"maxDrop": 0.0}, benchmark(0.60), benchmark(0.57), TRIPPED),
        ({"maxDrop": 0.0}, benchmark(0.60), benchmark(0.58), PASSED),
        ({"maxDrop": 1.0}, benchmark(9.0, 0.1, less=True), benchmark(10.5, 0.1, less=True), TRIPPED),
        ({"maxDrop": 1.0}, benchmark(9.0, 0.1, less=True), benchmark(7.0, 0.1, less=True), PASSED),
        ({"maxDrop": 0.02}, [], benchmark(0.5), NOT_EVALUATED),
    ],
)
def test_a_gate_on_a_benchmark_trips_when_the_whole_interval_is_beyond_its_bound(
    bound: dict[str, Any], initial: list[BenchmarkValue], newest: list[BenchmarkValue], expected: GateVerdict
) -> None:
    assert of_benchmark(initial, newest, **bound).verdict is expected


def test_a_plateau_of_a_benchmark_knows_from_lm_eval_whether_less_is_better() -> None:
    plateau = {"iterations": 1, "minDelta": 0.5}
    for less, expected in ((True, PASSED), (False, TRIPPED)):
        values = [benchmark(value, less=less) for value in (9.0, 8.0, 7.0)]
        assert of_benchmark(*values, plateau=plateau).verdict is expected


def test_a_drop_is_told_with_both_figures_and_what_was_allowed() -> None:
    status = of_benchmark(benchmark(0.6), benchmark(0.5), maxDrop=0.05)
    assert status.message == (
        "exact_match of gsm8k 0.5 [0.48, 0.52] of iteration 1 is 0.1 worse than pi_0's 0.6 [0.58, 0.62]: by more than maxDrop "
        "0.05, also at the lower bound of the difference."
    )
