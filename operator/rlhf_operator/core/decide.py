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
from rlhf_api.words import STAGE_ARTIFACT, Phase, Reason
from rlhf_operator.core.attempts.absorb import Absorbed, absorb_absence, absorb_job
from rlhf_operator.core.attempts.accounting import booked_apart, totals, usage, with_held, with_released, with_usage
from rlhf_operator.core.attempts.deadlines import deadline_exceeded, until_deadline
from rlhf_operator.core.attempts.letting_go import (
    clearing,
    deletions,
    lingering,
    lingering_shards,
    patience,
    shard_deletions,
    until_let_go,
)
from rlhf_operator.core.attempts.outcome import outcome_of
from rlhf_operator.core.attempts.retry import RunFailure, next_attempt
from rlhf_operator.core.chain.history import History, history_of
from rlhf_operator.core.jobs.launch import launch
from rlhf_operator.core.plan.planner import AwaitApproval, Finish, Planner, RunStage
from rlhf_operator.core.status.conditions import Standing, with_standing
from rlhf_operator.core.status.sentences import clip, sentence, stage_of
from rlhf_operator.core.status.status import accepted, with_iterates, with_place
from rlhf_operator.core.status.transitions import transitions

from .actions import Action, EmitEvent, RemoveChildren
from .cursor import current_stage, with_stage
from .observed import Job, JobPhase, Observed, PodState

#: How long to wait for something that will be told anyway, in case the telling is lost.
_LOOK_AGAIN = timedelta(seconds=30)
#: For what is refused for reasons outside the run: at first, and at last, for what was refused for long may be so for days.
_TRY_AGAIN = timedelta(seconds=5)
_LONGEST_TRY_AGAIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Decision:
    status: RLHFRunStatus
    actions: tuple[Action, ...] = ()
    """To be done in order, after the status is written; the first that fails ends the round."""
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
    """One decision about a run that is not finished. Every method returns a whole Decision, or None to go on."""

    def __init__(self, run: RLHFRun, observed: Observed, now: datetime) -> None:
        self.run = run
        self.spec = run.spec
        self.observed = observed
        self.now = now
        self.before = run.status or RLHFRunStatus()
        self.status = with_released(accepted(run, observed.environment, now), observed.jobs, now)
        self.warnings: tuple[str, ...] = ()

    def decide(self) -> Decision:
        if self.spec.cancel:
            return self._end(Phase.CANCELLED, Reason.CANCELLED, "Cancelled by spec.cancel; the artifacts made so far stay.")
        return self._follow() or self._keep_deadlines() or self._hold() or self._give_up() or self._go_on()

    def _follow(self) -> Decision | None:
        """Take in what became of the current attempt."""
        current = current_stage(self.status)
        if current is None:
            return None
        iteration, stage = current
        job = self.observed.job(iteration, stage.name, stage.attempt)
        if job is not None and not self.observed.live and (job.ended or outcome_of(job, self._config(stage), self.now) is not None):
            # An index may have heard of the Job's end and not yet of its pods, or of the worker that found the artifact and not yet
            # of the one that had made it.
            return Decision(self.before, observe_live=True)
        if job is not None:
            return self._take(self._absorb(iteration, stage, job))
        if stage.phase is not Phase.RUNNING:
            return None
        if not self.observed.live:
            return Decision(self.before, observe_live=True)
        return self._take(absorb_absence(self.status, iteration, stage, self.spec.retry, self.now))

    def _absorb(self, iteration: int | None, stage: StageStatus, job: Job) -> Absorbed:
        absorbed = absorb_job(self.status, iteration, stage, job, self._config(stage), self.spec.retry, self.now)
        if stage.phase is not Phase.SUSPENDED:
            return absorbed
        # It was told to stop: only that it got done in the meantime counts.
        return absorbed if current_stage(absorbed.status) is None else Absorbed(self.status)

    def _take(self, absorbed: Absorbed) -> Decision | None:
        self.status = absorbed.status
        self.warnings = absorbed.warnings
        return None if absorbed.failure is None else self._fail(absorbed.failure)

    def _keep_deadlines(self) -> Decision | None:
        failure = deadline_exceeded(self.spec, self.status, self._current_job(), self.now)
        return None if failure is None else self._fail(failure)

    def _hold(self) -> Decision | None:
        """Suspended by the spec, or for as long as the backend is being stopped: the Job is deleted, and no budget is used."""
        if not (self.spec.suspend or self.observed.interrupted):
            return None
        current = current_stage(self.status)
        if current is not None and current[1].phase is not Phase.SUSPENDED:
            iteration, stage = current
            self._book_unfinished(iteration, stage, Phase.SUSPENDED)
        message = (
            "Suspended by spec.suspend; set it to false to go on. Finished stages and checkpoints are kept."
            if self.spec.suspend
            else "Stopped; run it again to go on. Finished stages and checkpoints are kept."
        )
        return self._decision(Standing(Phase.SUSPENDED, Reason.SUSPENDED, message), *clearing(self.observed.jobs, self.now))

    def _give_up(self) -> Decision | None:
        """What was refused for the manifest's sake is refused again, however often it is tried."""
        refusal = next((entry for entry in self.observed.refusals if entry.reason is Reason.CONFIGURATION_ERROR), None)
        return None if refusal is None else self._fail(RunFailure(Reason.CONFIGURATION_ERROR, refusal.message))

    def _go_on(self) -> Decision:
        current = current_stage(self.status)
        if current is not None and current[1].phase is Phase.SUSPENDED:
            iteration, stage = current
            self.status = with_stage(self.status, iteration, next_attempt(stage, resolving=True))
        history = history_of(self.status)
        planner = self._planner()
        chain = planner.chain(history)
        self.status = with_iterates(self.status, history, chain.iterates)
        step = planner.step(chain)
        match step:
            case AwaitApproval():
                return self._pause(step)
            case Finish():
                return self._end(Phase.SUCCEEDED, step.reason, step.message)
            case RunStage(config):
                return self._work(planner, history, config)

    def _work(self, planner: Planner, history: History, config: StageConfig) -> Decision:
        current = current_stage(self.status)
        if current is None:
            resolving = config.stage in STAGE_ARTIFACT and history.chain_length < self.status.adoptable
            stage = StageStatus(name=config.stage, phase=Phase.PENDING, attempt=1, resolving=resolving)
            self.status = with_stage(self.status, config.iteration, stage)
        else:
            _, stage = current
        former = [job for job in self.observed.jobs if job.key != (config.iteration, config.stage, stage.attempt)]
        standing = self._at_work(config, stage, former)
        waits = {job.name: patience(job, self.now) for job in former if _holds(job)}
        if strays := deletions(job for job in former if waits.get(job.name, timedelta(0)) <= timedelta(0)):
            return self._decision(standing, strays, _LOOK_AGAIN)
        if stage.phase is Phase.RUNNING:
            return self._go_on_without(config.iteration, stage, standing)
        look = min((wait for wait in waits.values() if wait > timedelta(0)), default=_LOOK_AGAIN)
        if stage.retry_at is not None and stage.retry_at > self.now:
            retry = stage.retry_at - self.now
            return self._decision(standing, (), min(retry, look) if waits else retry)
        if any(_holds(job) for job in self.observed.jobs):
            return self._decision(standing, (), look)
        attempt = planner.attempt_config(config, stage.attempt, stage.resolving)
        actions = launch(self.spec, attempt, config.stage, stage, self.status.image)
        return self._decision(standing, actions, self._until_next_try() if self.observed.refusals else _LOOK_AGAIN)

    def _go_on_without(self, iteration: int | None, stage: StageStatus, standing: Standing) -> Decision:
        """The attempt at work goes on, without the pods of it that have done their part and do not end by themselves."""
        job = self._current_job()
        pods = lingering_shards(job, self.now)
        if job is None or not pods:
            return self._decision(standing, (), self._until_next_look())
        self.status = with_stage(self.status, iteration, booked_apart(stage, pods, self.now))
        self.status = self.status.model_copy(update={"totals": totals(self.status, 0.0)})
        return self._decision(standing, shard_deletions(job, pods), _LOOK_AGAIN)

    def _until_next_try(self) -> timedelta:
        """A quarter of the time that it is refused already."""
        since = min((refusal.since for refusal in self.observed.refusals if refusal.since is not None), default=self.now)
        return min(max((self.now - since) / 4, _TRY_AGAIN), _LONGEST_TRY_AGAIN)

    def _until_next_look(self) -> timedelta | None:
        """What keeps a pod from starting is told by events of its own, which nobody follows."""
        job = self._current_job()
        looks = [until_deadline(self.spec, self.status, job, self.now), until_let_go(job, self.now)]
        if job is not None and _waits(job):
            fresh = job.hindrance is None and self.now - (job.admitted_at or job.created_at) < _LOOK_AGAIN
            looks.append(_TRY_AGAIN if fresh else _LOOK_AGAIN)
        return min((look for look in looks if look is not None), default=None)

    def _at_work(self, config: StageConfig, stage: StageStatus, former: Iterable[Job]) -> Standing:
        started = self.before.phase is not Phase.PENDING or stage.phase is Phase.RUNNING
        phase = Phase.RUNNING if started else Phase.PENDING
        name = sentence(stage_of(config.iteration, config.stage, self.spec.iterations))
        job = self._current_job()
        if job is not None and job.hindrance is not None:
            return Standing(phase, job.hindrance.reason, f"{name} waits: {job.hindrance.message}")
        if self.observed.refusals and stage.phase is Phase.PENDING:
            refusal = self.observed.refusals[0]
            return Standing(phase, refusal.reason or Reason.RUNNING, f"{name} cannot start yet: {refusal.message}")
        held = next((other for other in former if _holds(other)), job)
        doing = "looks its artifact up" if stage.resolving else "is running" if stage.phase is Phase.RUNNING else "is starting"
        if stage.retry_at is not None and stage.retry_at > self.now:
            doing = f"waits until {stage.retry_at:%H:%M:%S} for attempt {stage.attempt}"
        elif held is not None and held is not job:
            doing = f"waits until the pods of {held.name} have ended"
        words = (f"{name} {doing}.", "" if held is None else lingering(held.pods), stage.message)
        return Standing(phase, Reason.RUNNING, " ".join(word for word in words if word))

    def _pause(self, step: AwaitApproval) -> Decision:
        entries = ", ".join(f"{{gate: {gate}, iteration: {step.iteration}}}" for gate in step.gates)
        message = f"Paused after iteration {step.iteration} by its gates. Add to spec.approvals to go on: {entries}."
        return self._decision(Standing(Phase.PAUSED, Reason.GATE_PAUSED, message), *clearing(self.observed.jobs, self.now))

    def _fail(self, failure: RunFailure) -> Decision:
        return self._end(Phase.FAILED, failure.reason, failure.message)

    def _end(self, phase: Phase, reason: Reason, message: str) -> Decision:
        message = clip(message)
        current = current_stage(self.status)
        if current is not None:
            iteration, stage = current
            self._book_unfinished(iteration, stage.model_copy(update={"message": message}), phase)
        return self._decision(Standing(phase, reason, message), *clearing(self.observed.jobs, self.now))

    def _book_unfinished(self, iteration: int | None, stage: StageStatus, phase: Phase) -> None:
        """The attempt is told to stop: its time until now is booked, once, and its state is `phase`."""
        job = self._current_job()
        lost = phase is not Phase.SUSPENDED
        booked = with_usage(stage, usage(job, self.now, stage.held), lost=lost)
        if job is not None and any(pod.lingers for pod in job.pods):
            booked = with_held(booked, job.pods, self.now, lost=lost)
        self.status = with_stage(self.status, iteration, booked.model_copy(update={"phase": phase, "retry_at": None}))
        self.status = self.status.model_copy(update={"totals": totals(self.status, usage(job, self.now).work_seconds)})

    def _decision(self, standing: Standing, actions: Iterable[Action], requeue_after: timedelta | None = None) -> Decision:
        status = with_standing(with_place(self.status), standing, self.run.metadata.generation, self.now)
        told = transitions(self.before, status, self.warnings)
        return Decision(status, (*told, *actions), requeue_after)

    def _planner(self) -> Planner:
        metadata = self.run.metadata
        reference = RunRef(namespace=metadata.namespace, name=metadata.name, uid=metadata.uid or "")
        allow_cpu = self.observed.environment.allow_cpu
        return Planner(reference, self.spec, self.status.resolved, self.status.prompt_iterations, allow_cpu)

    def _config(self, stage: StageStatus) -> StageConfig:
        """Of the current attempt."""
        planner = self._planner()
        step = planner.next_step(history_of(self.status))
        assert isinstance(step, RunStage)  # noqa: S101 - the current stage is one that the plan began
        return planner.attempt_config(step.config, stage.attempt, stage.resolving)

    def _current_job(self) -> Job | None:
        """Of the attempt at work, whose time is not booked yet."""
        current = current_stage(self.status)
        if current is None or current[1].phase is not Phase.RUNNING:
            return None
        iteration, stage = current
        return self.observed.job(iteration, stage.name, stage.attempt)


def _waits(job: Job) -> bool:
    """It may have pods, and one is not there or has not started."""
    return job.phase is JobPhase.ACTIVE and (not job.pods or any(pod.state is PodState.PENDING for pod in job.pods))


def _holds(job: Job) -> bool:
    """It has pods, or goes on having its name: nothing starts beside it."""
    return not job.released or job.deleting
