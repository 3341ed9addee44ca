"""decide: (run, observed, now) → what to do now, and the status to write first. Level-triggered: it looks at what is, never at what
happened, so an observation that is lost, repeated or late changes nothing in the end.

Two rules make a crash between any two steps harmless. The status is written before the actions, and only if nobody else wrote it in
between; and an action is decided only on a live observation, for only there is what is not seen really absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.stage import RunRef, StageConfig
from rlhf_api.words import STAGE_ARTIFACT, Phase, Reason, StageName
from rlhf_operator.core.attempts.absorb import Absorbed, absorb_absence, absorb_job
from rlhf_operator.core.attempts.accounting import booked_apart, totals, usage, with_held, with_released, with_usage
from rlhf_operator.core.attempts.deadlines import active_deadline, pending_deadline, until_deadline
from rlhf_operator.core.attempts.letting_go import (
    clearing,
    lingering_shards,
    shard_deletions,
    until_let_go,
)
from rlhf_operator.core.attempts.lines import Line, holds, lines_of
from rlhf_operator.core.attempts.outcome import outcome_of
from rlhf_operator.core.attempts.retry import RunFailure, next_attempt
from rlhf_operator.core.attempts.telling import told
from rlhf_operator.core.chain.history import History, history_of
from rlhf_operator.core.jobs.launch import launch
from rlhf_operator.core.jobs.names import child_name, run_child_name
from rlhf_operator.core.plan.planner import AwaitBeside, AwaitPerson, Finish, Plan, Planner
from rlhf_operator.core.status.conditions import Standing, with_standing
from rlhf_operator.core.status.sentences import clip, stage_of
from rlhf_operator.core.status.status import accepted, with_iterates, with_place
from rlhf_operator.core.status.transitions import transitions

from .actions import Action, EmitEvent, RemoveChildren
from .cursor import stages_of, unfinished_stages, with_stage
from .observed import Job, JobPhase, Observed, PodState

#: How long to wait for something that will be told anyway, in case the telling is lost.
_LOOK_AGAIN = timedelta(seconds=30)
#: For what is refused for reasons outside the run: at first, and at last, for what was refused for long may be so for days.
_TRY_AGAIN = timedelta(seconds=5)
_LONGEST_TRY_AGAIN = timedelta(seconds=60)


#: Actions for one line of Jobs, and when to look at it again.
_Work = tuple[tuple[Action, ...], timedelta | None]


@dataclass(frozen=True)
class Decision:
    status: RLHFRunStatus
    actions: tuple[Action, ...] = ()
    """To be done in order, after the status is written; one that fails takes with it what stands on it."""
    requeue_after: timedelta | None = None
    """Decide again by then at the latest; None: only a change of run or children makes a difference."""
    observe_live: bool = False
    """Nothing may be concluded from this observation: observe live, and decide again at once."""


def decide(run: RLHFRun, observed: Observed, now: datetime) -> Decision:
    before = run.status or RLHFRunStatus()
    if run.metadata.deletion_timestamp is not None:
        return Decision(before)
    released = with_released(before, observed.jobs, now)
    if released is not before and not observed.live:
        return Decision(before, observe_live=True)
    if before.phase.finished:
        return _confirmed(_after_the_end(run, released, observed, now), before, observed)
    return _confirmed(_Round(run, observed, now).decide(), before, observed)


def _confirmed(decision: Decision, before: RLHFRunStatus, observed: Observed) -> Decision:
    """Only a live observation leads to actions on children."""
    acts = any(not isinstance(action, EmitEvent) for action in decision.actions)
    if observed.live or not (acts or decision.observe_live):
        return decision
    return Decision(before, observe_live=True)


def _after_the_end(run: RLHFRun, status: RLHFRunStatus, observed: Observed, now: datetime) -> Decision:
    """A finished run never starts again: its Jobs are stopped, and after the ttl its children are removed."""
    actions, wait = clearing(observed.jobs, now)
    if actions:
        return Decision(status, actions, _LOOK_AGAIN)
    if any(not job.ended for job in observed.jobs):
        return Decision(status, requeue_after=wait or _LOOK_AGAIN)
    ttl = run.spec.ttl_seconds_after_finished
    if ttl is None or not observed.children:
        return Decision(status)
    left = (status.completion_time or now) + timedelta(seconds=ttl) - now
    if left > timedelta(0):
        return Decision(status, requeue_after=left)
    return Decision(status, (RemoveChildren(),), _LOOK_AGAIN)


class _Round:
    """One decision about a run that is not finished. Every method that may end it returns a whole Decision, or None to go on."""

    def __init__(self, run: RLHFRun, observed: Observed, now: datetime) -> None:
        self.run = run
        self.spec = run.spec
        self.observed = observed
        self.now = now
        self.before = run.status or RLHFRunStatus()
        self.status = with_released(accepted(run, observed.environment, now), observed.jobs, now)
        self.warnings: dict[tuple[int | None, StageName], tuple[str, ...]] = {}

    def decide(self) -> Decision:
        if self.spec.cancel:
            return self._end(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel; the artifacts made so far stay.")
        return self._follow() or self._keep_deadlines() or self._hold() or self._give_up() or self._go_on()

    # --- what became of the attempts at work ---

    def _follow(self) -> Decision | None:
        # The chain last: its failure ends the run, and with it what has not been looked at.
        for iteration, stage in reversed([*unfinished_stages(self.status)]):
            if (ended := self._follow_stage(iteration, stage)) is not None:
                return ended
        return None

    def _follow_stage(self, iteration: int | None, stage: StageStatus) -> Decision | None:
        config = self._config(iteration, stage)
        if config is None:
            self._cancel_unplanned(iteration, stage)
            return None
        job = self.observed.job(iteration, stage.name, stage.attempt)
        if job is not None and not self.observed.live and (job.ended or outcome_of(job, config, self.now) is not None):
            # An index may have heard of the Job's end and not yet of its pods, or of the worker that found the artifact and not yet
            # of the one that had made it.
            return Decision(self.before, observe_live=True)
        if job is not None:
            return self._take(iteration, stage, self._absorb(iteration, stage, job, config))
        if stage.phase is not Phase.RUNNING:
            return None
        if not self.observed.live:
            return Decision(self.before, observe_live=True)
        return self._take(iteration, stage, absorb_absence(self.status, iteration, stage, self.spec.retry, self.now))

    def _absorb(self, iteration: int | None, stage: StageStatus, job: Job, config: StageConfig) -> Absorbed:
        absorbed = absorb_job(self.status, iteration, stage, job, config, self.spec.retry, self.now)
        if stage.phase is not Phase.SUSPENDED:
            return absorbed
        # It was told to stop: only that it got done in the meantime counts.
        done = {(number, entry.name) for number, entry in stages_of(absorbed.status) if entry.phase is Phase.SUCCEEDED}
        return absorbed if (iteration, stage.name) in done else Absorbed(self.status)

    def _take(self, iteration: int | None, stage: StageStatus, absorbed: Absorbed) -> Decision | None:
        self.status = absorbed.status
        self.warnings[iteration, stage.name] = absorbed.warnings
        return None if absorbed.failure is None else self._fail_stage(iteration, stage, absorbed.failure)

    def _cancel_unplanned(self, iteration: int | None, stage: StageStatus) -> None:
        """A stage beside the chain that another version, or another manifest, has begun."""
        assert stage.beside, f"{stage_of(iteration, stage.name)} is none that the plan began"  # noqa: S101
        message = "This version does not run it for this manifest."
        self._book_unfinished(iteration, stage.model_copy(update={"message": message}), Phase.CANCELLED)

    # --- what ends a stage, or the run, from outside ---

    def _keep_deadlines(self) -> Decision | None:
        failure = active_deadline(self.spec, self.status, self._jobs_at_work(), self.now)
        if failure is not None:
            return self._fail(failure)
        for iteration, stage in [*unfinished_stages(self.status)]:
            job = self._job_at_work(iteration, stage)
            late = None if job is None else pending_deadline(self.spec, job, self.observed.jobs, self.now)
            if late is not None and (ended := self._fail_stage(iteration, stage, late)) is not None:
                return ended
        return None

    def _hold(self) -> Decision | None:
        """Suspended by the spec, or for as long as the backend is being stopped: Jobs are deleted, and no budget is used."""
        if not (self.spec.suspend or self.observed.interrupted):
            return None
        for iteration, stage in [*unfinished_stages(self.status)]:
            if stage.phase is not Phase.SUSPENDED:
                self._book_unfinished(iteration, stage, Phase.SUSPENDED)
        message = (
            "Suspended by spec.suspend; set it to false to go on. Finished stages and checkpoints are kept."
            if self.spec.suspend
            else "Stopped; run it again to go on. Finished stages and checkpoints are kept."
        )
        return self._decision(Standing(Phase.SUSPENDED, Reason.SUSPENDED, message), *clearing(self.observed.jobs, self.now))

    def _give_up(self) -> Decision | None:
        """What was refused for the manifest's sake is refused again, however often it is tried."""
        refusals = [entry for entry in self.observed.refusals if entry.reason is Reason.CONFIGURATION_ERROR]
        children = self._children()
        for refusal in refusals:
            failure = RunFailure(Reason.CONFIGURATION_ERROR, refusal.message)
            iteration, stage = children.get(refusal.name, (None, None))
            if stage is None or not stage.beside:
                return self._fail(failure)
            if not stage.phase.finished:
                self._fail_stage(iteration, stage, failure)
        return None

    # --- what to do now ---

    def _go_on(self) -> Decision:
        for iteration, stage in [*unfinished_stages(self.status)]:
            if stage.phase is Phase.SUSPENDED:
                self.status = with_stage(self.status, iteration, next_attempt(stage, resolving=True))
        history = history_of(self.status)
        planner = self._planner()
        chain = planner.chain(history)
        self.status = with_iterates(self.status, history, chain.iterates)
        plan = planner.plan(chain)
        if isinstance(plan.step, Finish):
            return self._end(Phase.SUCCEEDED, plan.step.reason, plan.step.message)
        self._begin(plan, history)
        standing = self._standing(plan)
        lines = list(lines_of(self.status, self.observed.jobs))
        strays = [action for line in lines for action in line.strays(self.now)]
        work = [self._work(planner, plan, line) for line in lines]
        looks = [look for _, look in work if look is not None]
        # What a Job that is gone leaves behind, quota for instance, may be what another needs to begin.
        actions = (*strays, *(action for actions, _ in work for action in actions))
        return self._decision(standing, actions, min(looks, default=None))

    def _begin(self, plan: Plan, history: History) -> None:
        """Stages that may run and are not in the status yet. What may be sealed already is looked up first."""
        known = set(_keys(stages_of(self.status)))
        for config in plan.configs:
            if (config.iteration, config.stage) in known:
                continue
            beside = config in plan.beside
            if beside:
                opened_by = history.find(config.iteration, StageName.EVALUATE)
                resolving = opened_by is not None and opened_by.adopted
            else:
                # preflight's walk ended where people had not answered yet; what they answered may have been labelled before.
                may_go_on = self.spec.reward.human is not None and history.newest_adopted
                resolving = config.stage in STAGE_ARTIFACT and (history.chain_length < self.status.adoptable or may_go_on)
            stage = StageStatus(name=config.stage, phase=Phase.PENDING, attempt=1, beside=beside, resolving=resolving)
            self.status = with_stage(self.status, config.iteration, stage)

    def _work(self, planner: Planner, plan: Plan, line: Line) -> _Work:
        stage = line.stage
        if line.strays(self.now):
            return (), _LOOK_AGAIN
        until_stray = line.until_stray(self.now)
        if stage is None:
            return (), until_stray or (_LOOK_AGAIN if line.in_the_way else None)
        if stage.phase is Phase.RUNNING:
            return self._go_on_without(line.iteration, stage)
        look = until_stray or _LOOK_AGAIN
        if stage.retry_at is not None and stage.retry_at > self.now:
            retry = stage.retry_at - self.now
            return (), min(retry, look) if any(holds(job) for job in line.former) else retry
        if line.in_the_way:
            return (), look
        config = plan.config(line.iteration, stage.name)
        assert config is not None  # noqa: S101 - what has no place in the plan is over
        attempt = planner.attempt_config(config, stage.attempt, stage.resolving)
        actions = launch(self.spec, attempt, config.stage, stage, self.status.image)
        return actions, self._until_next_try() if self.observed.refusals else _LOOK_AGAIN

    def _go_on_without(self, iteration: int | None, stage: StageStatus) -> _Work:
        """The attempt at work goes on, without the pods of it that have done their part and do not end by themselves."""
        job = self._job_at_work(iteration, stage)
        pods = lingering_shards(job, self.now)
        if job is None or not pods:
            return (), self._until_next_look(job)
        self.status = with_stage(self.status, iteration, booked_apart(stage, pods, self.now))
        self.status = self.status.model_copy(update={"totals": totals(self.status, 0.0)})
        return shard_deletions(job, pods), _LOOK_AGAIN

    def _until_next_try(self) -> timedelta:
        """A quarter of the time that it is refused already."""
        since = min((refusal.since for refusal in self.observed.refusals if refusal.since is not None), default=self.now)
        return min(max((self.now - since) / 4, _TRY_AGAIN), _LONGEST_TRY_AGAIN)

    def _until_next_look(self, job: Job | None) -> timedelta | None:
        """What keeps a pod from starting is told by events of its own, which nobody follows."""
        looks = [
            until_deadline(self.spec, self.status, self._jobs_at_work(), self.observed.jobs, self.now),
            until_let_go(job, self.now),
        ]
        if job is not None and _waits(job):
            fresh = job.hindrance is None and self.now - (job.admitted_at or job.created_at) < _LOOK_AGAIN
            looks.append(_TRY_AGAIN if fresh else _LOOK_AGAIN)
        return min((look for look in looks if look is not None), default=None)

    # --- how the run stands ---

    def _standing(self, plan: Plan) -> Standing:
        """The chain's words first, then those of what is beside it."""
        chain, *beside = lines_of(self.status, self.observed.jobs)
        others = [self._told(line) for line in beside if line.stage is not None]
        aside = "".join(f" {words}" for _, words in others)
        match plan.step:
            case AwaitPerson(reason, message):
                return Standing(Phase.PAUSED, reason, message + aside)
            case AwaitBeside(message):
                return Standing(Phase.RUNNING, next((reason for reason, _ in others), Reason.RUNNING), message + aside)
            case _:
                reason, words = self._told(chain)
                started = self.before.phase is not Phase.PENDING or (chain.stage is not None and chain.stage.phase is Phase.RUNNING)
                return Standing(Phase.RUNNING if started else Phase.PENDING, reason, words + aside)

    def _told(self, line: Line) -> tuple[Reason, str]:
        assert line.stage is not None  # noqa: S101 - the plan has just begun it
        children = self._children()
        refusals = {
            entry.name: entry for entry in self.observed.refusals if children.get(entry.name, (None, line.stage))[1] == line.stage
        }
        if line.stage.beside:
            shared = run_child_name(self.run.metadata.name, "pods")
            refusals = {name: entry for name, entry in refusals.items() if name in children or name == shared}
        refusal = next(iter(refusals.values()), None)
        return told(line, self._job_at_work(line.iteration, line.stage), refusal, self.spec.iterations, self.now)

    # --- ends ---

    def _fail_stage(self, iteration: int | None, stage: StageStatus, failure: RunFailure) -> Decision | None:
        """A stage of the chain takes the run with it; one beside the chain is left out."""
        now = next(entry for key, entry in stages_of(self.status) if (key, entry.name) == (iteration, stage.name))
        told = now.model_copy(update={"message": clip(failure.message)})
        if stage.beside:
            told = told.model_copy(update={"reason": failure.reason})
        if now.phase is Phase.FAILED:
            self.status = with_stage(self.status, iteration, told)
        elif stage.beside:
            self._book_unfinished(iteration, told, Phase.FAILED)
        return None if stage.beside else self._fail(failure)

    def _fail(self, failure: RunFailure) -> Decision:
        return self._end(Phase.FAILED, failure.reason, failure.message)

    def _end(self, phase: Phase, reason: Reason, message: str) -> Decision:
        message = clip(message)
        for iteration, stage in [*unfinished_stages(self.status)]:
            # What is beside the chain did not fail with it.
            own, words = (Phase.CANCELLED, "Stopped with the run.") if stage.beside else (phase, message)
            self._book_unfinished(iteration, stage.model_copy(update={"message": words}), own)
        return self._decision(Standing(phase, reason, message), *clearing(self.observed.jobs, self.now))

    def _book_unfinished(self, iteration: int | None, stage: StageStatus, phase: Phase) -> None:
        """The attempt is told to stop: its time until now is booked, once, and its state is `phase`."""
        job = self._job_at_work(iteration, stage)
        lost = phase is not Phase.SUSPENDED
        booked = with_usage(stage, usage(job, self.now, stage.held), lost=lost)
        if job is not None and any(pod.lingers for pod in job.pods):
            booked = with_held(booked, job.pods, self.now, lost=lost)
        self.status = with_stage(self.status, iteration, booked.model_copy(update={"phase": phase, "retry_at": None}))
        self.status = self.status.model_copy(update={"totals": totals(self.status, usage(job, self.now).work_seconds)})

    def _decision(self, standing: Standing, actions: Iterable[Action], requeue_after: timedelta | None = None) -> Decision:
        status = with_standing(with_place(self.status), standing, self.run.metadata.generation, self.now)
        events = transitions(self.before, status, self.warnings)
        return Decision(status, (*events, *actions), requeue_after)

    # --- looking things up ---

    def _planner(self) -> Planner:
        metadata = self.run.metadata
        reference = RunRef(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid or "")
        allow_cpu = self.observed.environment.allow_cpu
        return Planner(reference, self.spec, self.status.resolved, self.status.prompt_iterations, allow_cpu)

    def _config(self, iteration: int | None, stage: StageStatus) -> StageConfig | None:
        """Of the stage's newest attempt."""
        planner = self._planner()
        config = planner.plan(planner.chain(history_of(self.status))).config(iteration, stage.name)
        return None if config is None else planner.attempt_config(config, stage.attempt, stage.resolving)

    def _job_at_work(self, iteration: int | None, stage: StageStatus) -> Job | None:
        """Of a stage whose attempt is at work: its time is not booked yet."""
        return self.observed.job(iteration, stage.name, stage.attempt) if stage.phase is Phase.RUNNING else None

    def _jobs_at_work(self) -> list[Job]:
        jobs = (self._job_at_work(iteration, stage) for iteration, stage in unfinished_stages(self.status))
        return [job for job in jobs if job is not None]

    def _children(self) -> dict[str, tuple[int | None, StageStatus]]:
        """Stages, by what their newest attempts' children are called."""
        name = self.run.metadata.name
        return {child_name(name, number, stage.name, stage.attempt): (number, stage) for number, stage in stages_of(self.status)}


def _keys(stages: Iterable[tuple[int | None, StageStatus]]) -> Iterable[tuple[int | None, StageName]]:
    return ((iteration, stage.name) for iteration, stage in stages)


def _waits(job: Job) -> bool:
    """It may have pods, and one is not there or has not started."""
    return job.phase is JobPhase.ACTIVE and (not job.pods or any(pod.state is PodState.PENDING for pod in job.pods))
