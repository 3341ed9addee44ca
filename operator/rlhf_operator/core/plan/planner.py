"""The plan: (spec, resolved revisions, history) → the next step of the chain, and the stages that may run beside it.

preflight → [sft] → [reward] → [judge] → evaluate(pi_0) → for t = 1 … T: sample → [ask → a person] → label → [reference] → train →
evaluate → [benchmark] → gates; then finalize.
Beside it, where no gate reads it: benchmark of pi_k, from its evaluation on; finalize waits for all of them.

To walk the chain through the store, as preflight does, start with a history in which preflight is done and follow the steps:

    planner = Planner(run, spec, resolved)            # resolved: {path of core.chain.references: revision}
    history = History((StageRecord(None, StageName.PREFLIGHT),))
    adoptable = 0
    while isinstance(step := planner.next_step(history), RunStage) and step.config.stage in STAGE_ARTIFACT:
        result = look_up(STAGE_ARTIFACT[step.config.stage], step.config.fingerprint)   # StageResult from the manifest, or None
        if result is None:
            break
        history = history.with_result(step.config, result)
        adoptable += 1

The metrics in the result must be those that the stage reported: gates, rollbacks and Best are decided from them, so the walk takes
the turns that the run took. It ends by itself at a pause without approval and at finalize.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from rlhf_api.resource.evaluation import GateAction
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.stage import ResolveWork, RunRef, StageConfig, Work
from rlhf_api.words import STAGE_ARTIFACT, Reason, StageName
from rlhf_operator.core.chain.chain import Chain
from rlhf_operator.core.chain.gates import has_tripped, wait_for_benchmark
from rlhf_operator.core.chain.history import History
from rlhf_operator.core.chain.references import Resolver
from rlhf_operator.core.jobs.execution import execution

from .fingerprint import fingerprint
from .works_iteration import annotations_of, ask_work, label_work, reference_work, sample_work, train_work
from .works_run import (
    benchmark_work,
    evaluate_work,
    finalize_work,
    gated_benchmark_work,
    judge_work,
    preflight_work,
    reward_work,
    sft_work,
)


@dataclass(frozen=True)
class RunStage:
    """The next stage. `config` is its first attempt's; `attempt_config` gives that of any other."""

    config: StageConfig


@dataclass(frozen=True)
class AwaitPerson:
    """The chain goes on when somebody has written something into the spec."""

    reason: Reason
    message: str
    """What it waits for, and what to write."""


@dataclass(frozen=True)
class AwaitBeside:
    """The chain has come to its end, and what runs beside it has not."""

    message: str
    """Why it is at its end."""


@dataclass(frozen=True)
class Finish:
    reason: Reason
    """COMPLETED or GATE_STOPPED."""
    message: str
    best: int


Step = RunStage | AwaitPerson | AwaitBeside | Finish


@dataclass(frozen=True)
class Plan:
    """What may go on now: at most one stage of the chain, and any number beside it."""

    step: Step
    beside: tuple[StageConfig, ...] = ()

    @property
    def configs(self) -> tuple[StageConfig, ...]:
        """Of all stages that may run, the chain's first."""
        own = (self.step.config,) if isinstance(self.step, RunStage) else ()
        return (*own, *self.beside)

    def config(self, iteration: int | None, stage: StageName) -> StageConfig | None:
        return next((config for config in self.configs if (config.iteration, config.stage) == (iteration, stage)), None)


@dataclass(frozen=True)
class Planner:
    run: RunRef
    spec: RLHFRunSpec
    resolved: Mapping[str, str] = field(default_factory=dict)
    prompt_iterations: int | None = None
    """`status.promptIterations`; absent before the run started: spec.iterations."""
    allow_cpu: bool = False

    def chain(self, history: History) -> Chain:
        return Chain(self.spec, Resolver(self.resolved), history, self.prompt_iterations or self.spec.iterations)

    def next_step(self, history: History) -> Step:
        """The first stage of the chain that the history lacks."""
        return self.plan(self.chain(history)).step

    def plan(self, chain: Chain) -> Plan:
        beside = () if chain.history.finalizing else tuple(self._beside(chain))
        return Plan(self._step(chain, waits=bool(beside)), beside)

    def _step(self, chain: Chain, *, waits: bool) -> Step:
        """`waits`: something beside the chain is not over."""
        history = chain.history
        for name, build in _RUN_STAGES:
            if history.find(None, name) is None and (work := build(chain)) is not None:
                return RunStage(self._config(None, work))
        stopped = _stopped_by(chain)
        last = len(chain.iterates.known) - 1
        if not history.finalizing:
            if stopped is None and (waiting := _unapproved(chain)):
                return _await_approval(last, waiting)
            if stopped is None and last < self.spec.iterations:
                return self._iteration_step(chain, last + 1)
            if waits:
                return AwaitBeside(stopped or f"All {last} iterations are done.")
        if history.find(None, StageName.FINALIZE) is None:
            return RunStage(self._config(None, finalize_work(chain)))
        return _finish(chain, stopped, last)

    def attempt_config(self, config: StageConfig, attempt: int, resolving: bool) -> StageConfig:
        """The same stage's attempt: the work itself, or a look-up of its artifact under the same fingerprint."""
        update: dict[str, object] = {"execution": config.execution.model_copy(update={"attempt": attempt})}
        if resolving:
            update["work"] = ResolveWork(target=config.stage, kind=STAGE_ARTIFACT[config.stage])
            own = execution(self.spec, StageName.RESOLVE, attempt, self.allow_cpu)
            update["execution"] = own.model_copy(update={"benchmarks": config.execution.benchmarks})
        return config.model_copy(update=update)

    def _beside(self, chain: Chain) -> Iterator[StageConfig]:
        for iterate in chain.iterates.known:
            iteration = iterate.number or None
            if wait_for_benchmark(self.spec.gates, iterate.number):
                continue
            if not chain.history.is_over(iteration, StageName.BENCHMARK) and (work := benchmark_work(chain, iterate.number)):
                yield self._config(iteration, work)

    def _iteration_step(self, chain: Chain, iteration: int) -> Step:
        for name, build in _ITERATION_STAGES:
            if chain.history.find(iteration, name) is not None:
                continue
            if name is StageName.LABEL and self.spec.reward.human is not None and annotations_of(self.spec, iteration) is None:
                return _await_annotations(iteration)
            if (work := build(chain, iteration)) is not None:
                return RunStage(self._config(iteration, work))
        raise AssertionError(f"iteration {iteration} has all its stages and is not evaluated")

    def _config(self, iteration: int | None, work: Work) -> StageConfig:
        return StageConfig(
            run=self.run,
            iteration=iteration,
            seed=self.spec.seed,
            fingerprint=fingerprint(work, self.spec.seed),
            storage=self.spec.storage,
            execution=execution(self.spec, work.stage, 1, self.allow_cpu),
            work=work,
        )


_RUN_STAGES = (
    (StageName.PREFLIGHT, preflight_work),
    (StageName.SFT, sft_work),
    (StageName.REWARD, reward_work),
    (StageName.JUDGE, judge_work),
    (StageName.EVALUATE, partial(evaluate_work, iterate=0)),
    (StageName.BENCHMARK, partial(gated_benchmark_work, iterate=0)),
)
_ITERATION_STAGES = (
    (StageName.SAMPLE, sample_work),
    (StageName.ASK, ask_work),
    (StageName.LABEL, label_work),
    (StageName.REFERENCE, reference_work),
    (StageName.TRAIN, train_work),
    (StageName.EVALUATE, evaluate_work),
    (StageName.BENCHMARK, gated_benchmark_work),
)


def _stopped_by(chain: Chain) -> str | None:
    """The message of the gate that stopped the run."""
    newest = chain.iterates.known[-1]
    if not has_tripped(newest.gates, GateAction.STOP):
        return None
    gate = next(gate for gate in newest.gates if gate.action is GateAction.STOP and has_tripped([gate], GateAction.STOP))
    return f"Gate {gate.name} stopped the run after iteration {newest.number}: {gate.message}"


def _await_approval(iteration: int, gates: tuple[str, ...]) -> AwaitPerson:
    """Gates with action Pause tripped, and spec.approvals has no entry for them."""
    entries = ", ".join(f"{{gate: {gate}, iteration: {iteration}}}" for gate in gates)
    message = f"Paused after iteration {iteration} by its gates. Add to spec.approvals to go on: {entries}."
    return AwaitPerson(Reason.GATE_PAUSED, message)


def _await_annotations(iteration: int) -> AwaitPerson:
    """Questions are sealed, and spec.annotations has no answers to them. Where the run is, a whole command would have to say."""
    message = (
        f"Iteration {iteration} waits for people's answers to its questions: `rlhfctl annotations export` takes the questions out, "
        "`rlhfctl annotations import` brings the answers in."
    )
    return AwaitPerson(Reason.AWAITING_ANNOTATIONS, message)


def _unapproved(chain: Chain) -> tuple[str, ...]:
    return tuple(gate.name for gate in chain.iterates.known[-1].gates if has_tripped([gate], GateAction.PAUSE))


def _finish(chain: Chain, stopped: str | None, last: int) -> Finish:
    best = chain.iterates.best(last + 1)
    chosen = f"The best iterate is pi_{best} by {chain.spec.selection.metric.value}."
    if chain.history.given_up:
        gone = ", ".join(f"{stage} of pi_{iteration or 0}" for iteration, stage in chain.history.given_up)
        chosen = f"{chosen} Left out: {gone}."
    if stopped is not None:
        return Finish(Reason.GATE_STOPPED, f"{stopped} {chosen}", best)
    return Finish(Reason.COMPLETED, f"All {last} iterations are done. {chosen}", best)
