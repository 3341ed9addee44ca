"""Rules of evaluate, selection, gates and approvals: what is named must be measured."""

from __future__ import annotations

from rlhf_api.metrics import Metric
from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.evaluation import Against, Gate, GateAction
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.phrases import one_of
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.suggest import nearest
from rlhf_api.validation.walk import SPEC

#: Measured by evaluate, for pi_0 too: what a selection can compare iterates by.
SELECTABLE = (
    Metric.WIN_RATE_VS_INITIAL,
    Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL,
    Metric.REWARD_MEAN,
    Metric.JUDGE_MEAN,
    Metric.KL_TO_INITIAL,
    Metric.KL_TO_INITIAL_PER_TOKEN,
    Metric.MEAN_LENGTH,
    Metric.MEAN_LENGTH_RATIO_VS_INITIAL,
    Metric.ENTROPY_PER_TOKEN,
    Metric.CLIPPED_SHARE,
    Metric.DISTINCT_2,
)
#: The opponent in evaluate.against that a metric is measured against.
NEEDS = {
    Metric.WIN_RATE_VS_INITIAL: Against.INITIAL,
    Metric.LENGTH_ADJUSTED_WIN_RATE_VS_INITIAL: Against.INITIAL,
    Metric.WIN_RATE_VS_PREVIOUS: Against.PREVIOUS,
}
#: Of lm-evaluation-harness, those that papers write as per cent; of others the unit is not known here.
_BENCHMARK_SHARES = frozenset({"acc", "acc_norm", "exact_match", "prompt_level_strict_acc", "prompt_level_loose_acc"})
_SELECTION: Loc = (*SPEC, "selection", "metric")
_AGAINST: Loc = (*SPEC, "evaluate", "against")


def selection_is_measured(spec: RLHFRunSpec) -> Problems:
    metric = spec.selection.metric
    if metric is Metric.WIN_RATE_VS_PREVIOUS:
        yield Problem(_SELECTION, "compares each iterate with another one, so it makes no order of them", "write winRateVsInitial")
    elif metric not in SELECTABLE:
        yield Problem(
            _SELECTION, "not measured by evaluate, so pi_0 has none", f"write {one_of([each.value for each in SELECTABLE])}"
        )


def metrics_are_measured(spec: RLHFRunSpec) -> Problems:
    """`against` names the opponents that selection and gates need; labelers that compare give no mean score."""
    named = [(_SELECTION, spec.selection.metric)]
    named += [((*SPEC, "gates", index, "metric"), gate.metric) for index, gate in enumerate(spec.gates) if gate.metric is not None]
    for loc, metric in named:
        opponent = NEEDS.get(metric)
        if opponent is not None and opponent not in spec.evaluate.against:
            yield Problem(
                loc,
                f"needs {opponent.value} in evaluate.against, which is {[each.value for each in spec.evaluate.against]}",
                f"add {opponent.value} there, or name another metric",
                depends=(_AGAINST,),
            )
        for mean, labeler, place in (
            (Metric.JUDGE_MEAN, spec.evaluate.judge, (*SPEC, "evaluate", "judge", "type")),
            (Metric.REWARD_MEAN, spec.reward, (*SPEC, "reward", "type")),
        ):
            if metric is mean and labeler.type.compares:
                yield Problem(
                    loc, f"a {labeler.type} labeler gives no score that has a mean", "name another metric", depends=(place,)
                )


def gates_look_at_iterations(spec: RLHFRunSpec) -> Problems:
    """A gate on what no iteration measures would never be evaluated."""
    for index, gate in enumerate(spec.gates):
        if gate.metric is Metric.HELD_OUT_REWARD_ACCURACY:
            yield Problem(
                (*SPEC, "gates", index, "metric"),
                "measured once, of the reward model that the run trains, and in no iteration",
                "name another metric",
            )


def gates_read_benchmarks_that_are_asked(spec: RLHFRunSpec) -> Problems:
    """What a task file calls its task is in the file: preflight looks there."""
    tasks = spec.evaluate.lm_eval.tasks
    for index, gate in enumerate(spec.gates):
        if gate.benchmark is not None and "," in gate.benchmark.metric:
            metric, _, chosen = gate.benchmark.metric.partition(",")
            right = f"write {metric}" if chosen == "none" else f"write {metric}/{chosen}"
            yield Problem(
                (*SPEC, "gates", index, "benchmark", "metric"), "written as lm-evaluation-harness's results have it", right
            )
        if gate.benchmark is None or gate.benchmark.task in tasks or any(task.endswith((".yaml", ".yml")) for task in tasks):
            continue
        near = nearest(gate.benchmark.task, tasks)
        right = f"did you mean {near}?" if near else f"add {gate.benchmark.task} there"
        yield Problem(
            (*SPEC, "gates", index, "benchmark", "task"),
            "evaluate.lmEval.tasks has no such task",
            right,
            depends=((*SPEC, "evaluate", "lmEval", "tasks"),),
        )


def benchmark_bounds_fit_the_unit(spec: RLHFRunSpec) -> Problems:
    """lm-evaluation-harness gives accuracies as shares, and papers write them as per cent."""
    for index, gate in enumerate(spec.gates):
        if gate.benchmark is None or gate.benchmark.metric.partition("/")[0] not in _BENCHMARK_SHARES:
            continue
        for field, bound in (*_bounds(gate), ("maxDrop", gate.max_drop)):
            if bound is not None and not 0.0 <= bound <= 1.0:
                loc: Loc = (*SPEC, "gates", index)
                right = f"write {bound / 100:g}" if 1 < bound <= 100 else "write a number from 0 to 1"
                wrong = f"{gate.benchmark.metric} is a share, from 0 to 1"
                yield Problem((*loc, field), wrong, right, depends=((*loc, "benchmark", "metric"),))


def against_once(spec: RLHFRunSpec) -> Problems:
    against = spec.evaluate.against
    if len(set(against)) < len(against):
        yield Problem(_AGAINST, f"names {against[0].value} twice", "name each opponent once")


def gate_bounds_fit_the_unit(spec: RLHFRunSpec) -> Problems:
    """A share lies in [0, 1]: 45 for 45 % would trip always or never."""
    for index, gate in enumerate(spec.gates):
        for field, bound in _bounds(gate):
            if gate.metric is not None and gate.metric.unit == "share" and not 0.0 <= bound <= 1.0:
                loc: Loc = (*SPEC, "gates", index)
                right = f"write {bound / 100:g}" if 1 < bound <= 100 else "write a number from 0 to 1"
                yield Problem((*loc, field), f"{gate.metric.value} is a share, from 0 to 1", right, depends=((*loc, "metric"),))


def _bounds(gate: Gate) -> list[tuple[str, float]]:
    bounds = [("min", gate.min), ("max", gate.max)]
    return [(field, bound) for field, bound in bounds if bound is not None]


def approvals_name_gates(spec: RLHFRunSpec) -> Problems:
    gates = {gate.name: gate for gate in spec.gates}
    pausing = [name for name, gate in gates.items() if gate.action is GateAction.PAUSE]
    known = f"write {one_of(pausing)}" if pausing else "no gate has action Pause; remove the approval"
    for index, approval in enumerate(spec.approvals):
        loc: Loc = (*SPEC, "approvals", index)
        depends: tuple[Loc, ...] = ((*SPEC, "gates"), *((*SPEC, "gates", each, "name") for each in range(len(spec.gates))))
        gate = gates.get(approval.gate)
        if gate is None:
            yield Problem((*loc, "gate"), "no gate has this name", known, depends=depends)
        elif gate.action is not GateAction.PAUSE:
            yield Problem((*loc, "gate"), f"this gate has action {gate.action.value} and waits for nobody", known, depends=depends)
        if not 1 <= approval.iteration <= spec.iterations:
            yield Problem(
                (*loc, "iteration"),
                f"no iteration of this run: there are {spec.iterations}",
                f"write 1 to {spec.iterations}",
                depends=((*SPEC, "iterations"),),
            )


def validation_has_prompts(spec: RLHFRunSpec) -> Problems:
    if spec.prompts.validation.size == 0:
        yield Problem((*SPEC, "prompts", "validation", "size"), "no prompts for selection and gates", "write at least 1")
