"""A world without processes: Jobs, pods, a store and an API server as data, in which everything that can go wrong does.

What goes wrong is read from a tape of numbers; when the tape is at its end, nothing goes wrong any more. So hypothesis can shrink
it, and every run must come to its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus
from rlhf_api.stage import ArtifactRef, ResolveWork, StageConfig, StageResult
from rlhf_api.words import STAGE_ARTIFACT, Phase, StageName
from rlhf_operator.core.actions import Action, CreateJob, DeleteJob, DeletePod, EmitEvent, RemoveChildren, Topology
from rlhf_operator.core.chain.gates import wait_for_benchmark
from rlhf_operator.core.chain.history import History, StageRecord
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.observed import Environment, Job, JobPhase, Observed, Pod, PodState
from rlhf_operator.core.plan.planner import Planner, RunStage
from rlhf_operator.ports import Seen
from support.runs import MetricsOf, digest_of, falling, improving, result_of
from support.tape import DONE, DONE_AND_LOST, FAILURES, SEALED_AND_KILLED, VANISHING, Clock, Crash, End, Tape


@dataclass
class SimulatedJob:
    action: CreateJob
    job: Job
    shards_failed: dict[int, int] = field(default_factory=dict)


@dataclass
class World:
    """Holds the run, its Jobs and the store, and the promises that must hold at every moment."""

    run: RLHFRun
    tape: Tape = field(default_factory=Tape)
    clock: Clock = field(default_factory=Clock)
    metrics: MetricsOf = improving
    fate: Callable[[CreateJob, Pod, Tape], End | None] | None = None
    """How a process ends now, or None while it goes on; absent: DONE, or as the tape says."""
    environment: Environment = field(default_factory=Environment)
    interrupted: bool = False
    sidecar: str | None = None
    """A container that goes on in every pod when the stage's has ended, until the pod is told to end."""
    jobs: dict[str, SimulatedJob] = field(default_factory=dict)
    sealed: dict[str, int] = field(default_factory=dict)
    """Fingerprint → how many times it was computed."""
    shards: set[tuple[str, int, int]] = field(default_factory=set)
    created: list[CreateJob] = field(default_factory=list)
    events: list[EmitEvent] = field(default_factory=list)
    version: int = 0
    removed: bool = False
    _old_runs: list[tuple[int, RLHFRun]] = field(default_factory=list)
    _old_jobs: list[tuple[Job, ...]] = field(default_factory=list)
    _ends: dict[str, End] = field(default_factory=dict)
    """How the stage's container ended, by the names of pods that linger or lingered."""
    _pods: int = 0

    # --- what the operator sees and does ---

    def observe(self, *, live: bool) -> Seen | None:
        # Even next to a live list of Jobs the run may come from an index that lags behind.
        self._old_runs = [*self._old_runs, (self.version, self.run)][-8:]
        version, run = self._old_runs[-1]
        if self.tape.happens(8):
            version, run = self.tape.choose(*reversed(self._old_runs))
        self._old_jobs = [*self._old_jobs, self.present()][-8:]
        jobs = self._old_jobs[-1] if live or not self.tape.happens(4) else self.tape.choose(*reversed(self._old_jobs))
        if not live and self.tape.happens(8):
            jobs = jobs[1:]
        run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"resource_version": str(version)})})
        children = bool(self.jobs) or (bool(self.created) and not self.removed)
        observed = Observed(jobs, live=live, children=children, interrupted=self.interrupted, environment=self.environment)
        return Seen(run, observed)

    def write_status(self, seen: Seen, status: RLHFRunStatus) -> bool:
        self._maybe_crash()
        if seen.run.metadata.resource_version != str(self.version):
            return False
        RLHFRunStatus.model_validate(status.to_wire())
        self.run = self.run.model_copy(update={"status": status})
        self.version += 1
        self._maybe_crash()
        return True

    def apply(self, run: RLHFRun, action: Action) -> bool:
        self._maybe_crash()
        if self.tape.happens(12):
            return False
        match action:
            case CreateJob():
                done = self._create(action)
            case DeleteJob():
                done = self._delete(action)
            case DeletePod():
                done = self._delete_pod(action)
            case RemoveChildren():
                self.jobs.clear()
                self.removed = done = True
            case EmitEvent():
                self.events.append(action)
                done = True
            case _:
                done = True
        self._maybe_crash()
        return done

    def change_spec(self, **fields: object) -> None:
        self.run = self.run.model_copy(update={"spec": self.run.spec.model_copy(update=fields)})
        self.version += 1

    # --- what happens by itself ---

    def step(self) -> None:
        """Every Job gets on by one step, or meets its fate."""
        for name, simulated in list(self.jobs.items()):
            if simulated.job.deleting:
                self._vanish(name, simulated)
            elif not simulated.job.ended:
                self._get_on(simulated)
        self.clock.advance(self.tape.choose(60, 1, 0, 5))

    def present(self) -> tuple[Job, ...]:
        return tuple(simulated.job for simulated in self.jobs.values())

    def _maybe_crash(self) -> None:
        if self.tape.happens(16):
            raise Crash

    def _create(self, action: CreateJob) -> bool:
        known = self.jobs.get(action.name)
        if known is not None:
            return not known.job.deleting
        key = (action.iteration, action.stage, action.attempt)
        assert all((job.iteration, job.stage, job.attempt) != key for job in self.created), f"attempt {key} was made twice"
        line = [other.job for other in self.jobs.values() if self._line(other.action) == self._line(action)]
        there = [job.name for job in line if not job.ended or job.deleting]
        assert not there, f"{action.name} was started while {there} had not ended, or was not gone"
        fingerprint = action.config.fingerprint
        computes = not isinstance(action.config.work, ResolveWork) and action.stage in STAGE_ARTIFACT
        assert not (computes and fingerprint in self.sealed), f"{action.name} computes a sealed artifact again"
        self.created.append(action)
        now = self.clock.now()
        pods = tuple(self._pod(index) for index in range(action.shape.completions))
        self.jobs[action.name] = SimulatedJob(
            action,
            Job(
                name=action.name,
                uid=hashlib.sha256(action.name.encode()).hexdigest(),
                iteration=action.iteration,
                stage=action.stage,
                attempt=action.attempt,
                phase=JobPhase.ACTIVE,
                created_at=now,
                admitted_at=now,
                resolving=action.resolving,
                pods=pods,
                infrastructure_base=action.infrastructure_base,
                application_base=action.application_base,
                completions=action.shape.completions,
            ),
        )
        return True

    def _pod(self, index: int) -> Pod:
        self._pods += 1
        name = f"pod-{self._pods}"
        return Pod(PodState.PENDING, index, created_at=self.clock.now(), gpus=1, name=name, uid=f"uid of {name}")

    def _delete(self, action: DeleteJob) -> bool:
        known = self.jobs.get(action.name)
        if known is not None and known.job.uid == action.uid:
            known.job = replace(known.job, deleting=True)
        return True

    def _delete_pod(self, action: DeletePod) -> bool:
        for simulated in self.jobs.values():
            for pod in [pod for pod in simulated.job.pods if pod.uid == action.uid]:
                assert pod.exit_code is not None, f"{action.name} is at work"
                self._replace(simulated, pod, replace(pod, state=PodState.TERMINATING, beside=()))
        return True

    def _vanish(self, name: str, simulated: SimulatedJob) -> None:
        """A Job that is being deleted: its processes may still get done before they are gone, unseen by anybody."""
        match self.tape.choose(*VANISHING):
            case "go":
                del self.jobs[name]
            case "seal":
                for pod in simulated.job.pods:
                    if pod.state is PodState.RUNNING:
                        self._end(simulated, pod, DONE_AND_LOST)
            case "fail":
                stopped = tuple(self._stopped(pod) for pod in simulated.job.pods)
                simulated.job = replace(simulated.job, phase=JobPhase.FAILED, pods=stopped)

    def _get_on(self, simulated: SimulatedJob) -> None:
        job = simulated.job
        if job.phase is JobPhase.FAILURE_TARGET:
            simulated.job = replace(job, phase=JobPhase.FAILED, pods=tuple(self._stopped(pod) for pod in job.pods))
            return
        # A stranger deletes it. (Before the operator noticed it, that would be as if it had never been made.)
        if self._noticed(job) and self.tape.happens(20):
            simulated.job = replace(job, deleting=True)
            return
        for pod in job.pods:
            if pod.state is PodState.PENDING:
                self._replace(simulated, pod, replace(pod, state=PodState.RUNNING, started_at=self.clock.now()))
            elif pod.state is PodState.TERMINATING and pod.name in self._ends and not self.tape.happens(4):
                self._let_go(simulated, pod)
            elif pod.lingers and self.tape.happens(8):
                ended = replace(pod, beside=())
                self._replace(simulated, pod, ended)
                self._count(simulated, ended, self._ends.pop(pod.name))
            elif pod.state is PodState.RUNNING and not self.tape.happens(4):
                end = self._fate(simulated.action, pod)
                if end is not None:
                    self._end(simulated, pod, end)
            if simulated.job.phase is not JobPhase.ACTIVE:
                return

    def _noticed(self, job: Job) -> bool:
        stages = () if self.run.status is None else stages_of(self.run.status)
        return (job.iteration, job.stage, job.attempt, Phase.RUNNING) in {
            (iteration, stage.name, stage.attempt, stage.phase) for iteration, stage in stages
        }

    def _fate(self, action: CreateJob, pod: Pod) -> End | None:
        if self.fate is not None:
            return self.fate(action, pod, self.tape)
        return self.tape.choose(DONE, DONE_AND_LOST, SEALED_AND_KILLED, DONE, *FAILURES)

    def _end(self, simulated: SimulatedJob, pod: Pod, end: End) -> None:
        action = simulated.action
        result = self._result(action, pod, end)
        state = PodState.SUCCEEDED if end.exit_code == 0 else PodState.FAILED
        ended = replace(
            pod,
            state=state,
            exit_code=end.exit_code,
            reason=end.reason,
            disrupted=end.disrupted,
            finished_at=self.clock.now(),
            result=result if end.speaks else None,
        )
        if self.sidecar is not None and not simulated.job.deleting and end.exit_code is not None and not end.disrupted:
            self._ends[pod.name] = end
            self._replace(simulated, pod, replace(ended, beside=(self.sidecar,)))
            return
        self._replace(simulated, pod, ended)
        self._count(simulated, ended, end)

    def _let_go(self, simulated: SimulatedJob, pod: Pod) -> None:
        """A pod that was told to end is gone. Its Job counts it as it would have; what is left of it is a number."""
        end = self._ends.pop(pod.name)
        # A sidecar that does not end well is ignored as a preemption is.
        end = End(143) if end.exit_code == 0 and self.tape.happens(4) else end
        ignored, state = end.exit_code in (75, 143), PodState.FAILED if end.exit_code else PodState.SUCCEEDED
        left = Pod(state, pod.index, None if ignored else min(end.exit_code or 0, 1), disrupted=ignored)
        self._replace(simulated, pod, left)
        self._count(simulated, left, end)

    def _count(self, simulated: SimulatedJob, pod: Pod, end: End) -> None:
        if pod.state is PodState.FAILED:
            self._after_failure(simulated, pod, end)
        elif all(index in _succeeded(simulated.job) for index in range(simulated.action.shape.completions)):
            simulated.job = replace(simulated.job, phase=JobPhase.COMPLETE)

    def _result(self, action: CreateJob, pod: Pod, end: End) -> StageResult:
        """What the process wrote; its artifact is sealed on the way, where it is."""
        config = action.config
        if not end.seals:
            return StageResult(stage=config.stage, attempt=action.attempt, problem=f"It failed with {end.exit_code}.")
        if isinstance(config.work, ResolveWork):
            found = config.fingerprint in self.sealed
            artifact = self._artifact(config, action.stage) if found else None
            metrics = self._metrics(action) if found else {}
            figures = falling(config) if found else []
            return StageResult(
                stage=action.stage, attempt=action.attempt, found=found, artifact=artifact, metrics=metrics, benchmarks=figures
            )
        if action.stage not in STAGE_ARTIFACT:
            return StageResult(stage=config.stage, attempt=action.attempt, adoptable=self._adoptable(config))
        if action.shape.topology is Topology.SHARDED:
            shards = action.shape.completions
            self.shards.add((config.fingerprint, shards, pod.index))
            if not all((config.fingerprint, shards, index) in self.shards for index in range(shards)):
                return StageResult(stage=config.stage, attempt=action.attempt, shard=pod.index)
        found = config.fingerprint in self.sealed
        if not found:
            self.sealed[config.fingerprint] = 1
        artifact = self._artifact(config, action.stage)
        return StageResult(
            stage=config.stage,
            attempt=action.attempt,
            found=found,
            artifact=artifact,
            metrics=self._metrics(action),
            benchmarks=falling(config),
        )

    def _adoptable(self, config: StageConfig) -> int:
        """As preflight walks the chain through the store."""
        if config.stage is not StageName.PREFLIGHT:
            return 0
        planner = Planner(config.run, self.run.spec)
        history = History((StageRecord(None, StageName.PREFLIGHT),))
        while isinstance(step := planner.next_step(history), RunStage) and step.config.fingerprint in self.sealed:
            metrics = self.metrics(step.config.iteration, step.config.stage)
            history = history.with_result(step.config, result_of(step.config, metrics))
        return history.chain_length

    def _artifact(self, config: StageConfig, stage: StageName) -> ArtifactRef:
        return ArtifactRef(kind=STAGE_ARTIFACT[stage], fingerprint=config.fingerprint, digest=digest_of(config.fingerprint))

    def _metrics(self, action: CreateJob) -> dict[Metric, MetricValue]:
        figures = self.metrics(action.iteration, action.stage)
        return {metric: MetricValue(value=value) for metric, value in figures.items()}

    def _line(self, action: CreateJob) -> tuple[int | None, StageName] | None:
        beside = action.stage is StageName.BENCHMARK and not wait_for_benchmark(self.run.spec.gates, action.iteration or 0)
        return (action.iteration, action.stage) if beside else None

    def _after_failure(self, simulated: SimulatedJob, pod: Pod, end: End) -> None:
        shape = simulated.action.shape
        fatal = shape.topology is not Topology.SHARDED or end.exit_code == 64
        if not fatal:
            ignored = end.disrupted or end.exit_code in (75, 143)
            failures = simulated.shards_failed.get(pod.index, 0) + (not ignored)
            simulated.shards_failed[pod.index] = failures
            fatal = failures > (shape.backoff_limit_per_index or 0)
        if fatal:
            simulated.job = replace(simulated.job, phase=JobPhase.FAILURE_TARGET)
        else:
            simulated.job = replace(simulated.job, pods=(*simulated.job.pods, self._pod(pod.index)))

    def _stopped(self, pod: Pod) -> Pod:
        if pod.state.ended:
            return replace(pod, beside=())
        return replace(pod, state=PodState.FAILED, exit_code=143, finished_at=self.clock.now())

    def _replace(self, simulated: SimulatedJob, old: Pod, new: Pod) -> None:
        pods = tuple(new if pod is old else pod for pod in simulated.job.pods)
        simulated.job = replace(simulated.job, pods=pods)


def _succeeded(job: Job) -> set[int]:
    return {pod.index for pod in job.pods if pod.state is PodState.SUCCEEDED and not pod.lingers}
