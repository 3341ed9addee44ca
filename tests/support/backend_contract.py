"""What every backend promises to the core. The simulated, the local and the Kubernetes backend pass this one suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from rlhf_api.resource.run import RLHFRun
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.stage import RunRef
from rlhf_api.words import STAGE_ARTIFACT, Phase, StageName
from rlhf_operator.core.actions import Action, CreateJob, DeleteJob, EmitEvent, EventKind, RemoveChildren
from rlhf_operator.core.jobs.launch import launch
from rlhf_operator.core.observed import Job, JobPhase, Observed, PodState
from rlhf_operator.core.plan.planner import Planner
from rlhf_operator.ports import Backend, Clock, Seen
from rlhf_operator.reconcile import reconcile
from support.runs import run_of, spec_of, walk

#: A run with a job of each topology: preflight one pod, sample two shards, train two nodes.
SPEC: dict[str, Any] = {
    "iterations": 1,
    "sample": {"shards": 2, "parallelism": 2},
    "train": {"compute": {"nodes": 2, "processesPerNode": 1}},
    "retry": {"application": 1, "backoffSeconds": 0},
}


def contract_run(storage_url: str) -> RLHFRun:
    return run_of(spec_of(**SPEC, storage={"url": storage_url}))


class Harness(ABC):
    """A backend with one run, and a hand on its stages."""

    backend: Backend
    clock: Clock

    @abstractmethod
    def plan(self, stage: str, *plans: str) -> None:
        """What the next starts of `<stage>-<iteration>[-<shard>]` do: `exit CODE` says why, `silent CODE` leaves no result,
        `no-result` seals and leaves none, `hang` goes on until SIGTERM and then exits 143; without a plan it does its work.
        """

    @abstractmethod
    def wait(self) -> None:
        """Until something may have happened."""

    @abstractmethod
    def kill(self, job: Job) -> None:
        """SIGKILL to the stage process of a Job's only pod."""

    def seen(self) -> Seen:
        seen = self.backend.observe(live=True)
        assert seen is not None
        return seen

    def apply(self, *actions: Action) -> bool:
        return all(self.backend.apply(self.seen().run, action) for action in actions)

    def until(self, condition: Callable[[Observed], bool]) -> Observed:
        for _ in range(20000):
            observed = self.seen().observed
            if condition(observed):
                return observed
            self.wait()
        raise AssertionError(f"it never came to this: {self.seen().observed}")

    def ended(self, name: str) -> Job:
        """The Job, once it has ended."""
        observed = self.until(lambda observed: any(job.name == name and job.ended for job in observed.jobs))
        return next(job for job in observed.jobs if job.name == name)

    def running(self, name: str) -> Job:
        """The Job, once all its pods run."""

        def runs(observed: Observed) -> bool:
            jobs = [job for job in observed.jobs if job.name == name]
            return bool(jobs) and all(pod.state is PodState.RUNNING for pod in jobs[0].pods) and self.reached(jobs[0])

        return next(job for job in self.until(runs).jobs if job.name == name)

    def reached(self, job: Job) -> bool:
        """Its processes have come to where their plan lets them hang."""
        return True


def launched(run: RLHFRun, stage: StageName, attempt: int = 1, *, resolving: bool = False) -> tuple[Action, ...]:
    """The actions that start an attempt of this stage, as the core makes them."""
    planner = Planner(run_reference(run), run.spec)
    config = next(config for config in walk(planner)[0] if config.stage is stage)
    status = StageStatus(name=stage, phase=Phase.PENDING, attempt=attempt, resolving=resolving)
    return launch(run.spec, planner.attempt_config(config, attempt, resolving), stage, status, image=None)


def run_reference(run: RLHFRun) -> RunRef:
    return RunRef(namespace=run.metadata.namespace, name=run.metadata.name, uid=run.metadata.uid or "")


class BackendContract:
    """Subclasses give a fixture `harness`."""

    def start(self, harness: Harness, stage: StageName, attempt: int = 1, **options: Any) -> str:
        actions = launched(harness.seen().run, stage, attempt, **options)
        assert harness.apply(*actions)
        return self.job_of(actions).name

    def job_of(self, actions: tuple[Action, ...]) -> CreateJob:
        return next(action for action in actions if isinstance(action, CreateJob))

    def test_an_attempt_is_seen_as_what_it_is(self, harness: Harness) -> None:
        harness.plan("preflight-0", "hang")
        name = self.start(harness, StageName.PREFLIGHT, attempt=3)
        job = harness.running(name)
        assert job.key == (None, StageName.PREFLIGHT, 3)
        assert (job.phase, job.resolving, job.deleting) == (JobPhase.ACTIVE, False, False)
        assert job.created_at.tzinfo is not None
        [pod] = job.pods
        assert pod.started_at is not None
        assert pod.started_at >= job.created_at

    def test_creating_it_again_is_success_and_starts_nothing(self, harness: Harness) -> None:
        harness.plan("preflight-0", "hang")
        name = self.start(harness, StageName.PREFLIGHT)
        job = harness.running(name)
        assert harness.apply(*launched(harness.seen().run, StageName.PREFLIGHT))
        [again] = harness.seen().observed.jobs
        assert (again.uid, len(again.pods)) == (job.uid, 1)

    def test_a_stage_that_ends_well_is_complete_with_its_result(self, harness: Harness) -> None:
        job = harness.ended(self.start(harness, StageName.EVALUATE))
        assert job.phase is JobPhase.COMPLETE
        [pod] = job.pods
        assert (pod.state, pod.exit_code) == (PodState.SUCCEEDED, 0)
        assert pod.finished_at is not None
        assert pod.result is not None
        assert pod.result.artifact is not None
        assert pod.result.artifact.kind is STAGE_ARTIFACT[StageName.EVALUATE]

    def test_a_stage_that_fails_has_its_exit_code_and_its_own_words(self, harness: Harness) -> None:
        for attempt, code in enumerate((1, 64, 75), start=1):
            harness.plan("preflight-0", f"exit {code}")
            job = harness.ended(self.start(harness, StageName.PREFLIGHT, attempt))
            assert job.phase is JobPhase.FAILED
            [pod] = job.pods
            assert (pod.state, pod.exit_code) == (PodState.FAILED, code)
            assert pod.result is not None
            assert pod.result.problem

    def test_a_stage_that_leaves_no_result_has_none(self, harness: Harness) -> None:
        harness.plan("evaluate-0", "no-result")
        complete = harness.ended(self.start(harness, StageName.EVALUATE))
        assert (complete.phase, complete.pods[0].result) == (JobPhase.COMPLETE, None)
        harness.plan("preflight-0", "silent 1")
        failed = harness.ended(self.start(harness, StageName.PREFLIGHT))
        assert (failed.phase, failed.pods[0].exit_code, failed.pods[0].result) == (JobPhase.FAILED, 1, None)

    def test_a_killed_stage_has_exit_code_137(self, harness: Harness) -> None:
        harness.plan("preflight-0", "hang")
        name = self.start(harness, StageName.PREFLIGHT)
        harness.kill(harness.running(name))
        job = harness.ended(name)
        assert (job.phase, job.pods[0].exit_code, job.pods[0].result) == (JobPhase.FAILED, 137, None)

    def test_a_resolve_attempt_finds_what_is_sealed_and_only_that(self, harness: Harness) -> None:
        nothing = harness.ended(self.start(harness, StageName.EVALUATE, 1, resolving=True))
        assert nothing.resolving
        assert nothing.pods[0].result is not None
        assert nothing.pods[0].result.artifact is None
        computed = harness.ended(self.start(harness, StageName.EVALUATE, 2))
        found = harness.ended(self.start(harness, StageName.EVALUATE, 3, resolving=True))
        assert found.pods[0].result is not None
        assert computed.pods[0].result is not None
        assert found.pods[0].result.found
        assert found.pods[0].result.artifact == computed.pods[0].result.artifact

    def test_a_deleted_attempt_is_gone_only_when_its_processes_are(self, harness: Harness) -> None:
        harness.plan("preflight-0", "hang")
        name = self.start(harness, StageName.PREFLIGHT)
        job = harness.running(name)
        assert harness.apply(DeleteJob(name, job.uid))
        assert harness.apply(DeleteJob(name, job.uid))
        for seen in harness.seen().observed.jobs:
            assert seen.deleting
        harness.until(lambda observed: not observed.jobs)
        assert harness.apply(DeleteJob(name, job.uid))

    def test_only_the_job_with_that_uid_is_deleted(self, harness: Harness) -> None:
        harness.plan("preflight-0", "hang")
        name = self.start(harness, StageName.PREFLIGHT)
        harness.running(name)
        harness.apply(DeleteJob(name, "of another"))
        [job] = harness.seen().observed.jobs
        assert not job.deleting

    def test_an_attempt_that_ended_can_be_deleted(self, harness: Harness) -> None:
        name = self.start(harness, StageName.PREFLIGHT)
        job = harness.ended(name)
        assert harness.apply(DeleteJob(name, job.uid))
        harness.until(lambda observed: not observed.jobs)

    def test_each_shard_has_its_index_and_whoever_is_last_has_the_artifact(self, harness: Harness) -> None:
        job = harness.ended(self.start(harness, StageName.SAMPLE))
        assert job.phase is JobPhase.COMPLETE
        assert sorted(pod.index for pod in job.pods) == [0, 1]
        assert any(pod.result is not None and pod.result.artifact is not None for pod in job.pods)

    def test_a_shard_is_tried_again_by_itself_within_its_limit(self, harness: Harness) -> None:
        harness.plan("sample-1-1", "exit 1")
        job = harness.ended(self.start(harness, StageName.SAMPLE))
        assert job.phase is JobPhase.COMPLETE
        assert sorted((pod.index, pod.exit_code) for pod in job.pods) == [(0, 0), (1, 0), (1, 1)]

    def test_a_preempted_shard_does_not_count_against_its_limit(self, harness: Harness) -> None:
        harness.plan("sample-1-1", "exit 143", "exit 75", "exit 1", "exit 143")
        job = harness.ended(self.start(harness, StageName.SAMPLE))
        assert job.phase is JobPhase.COMPLETE
        assert [pod.exit_code for pod in job.pods if pod.index == 1].count(143) == 2

    def test_a_shard_beyond_its_limit_fails_the_attempt(self, harness: Harness) -> None:
        harness.plan("sample-1-0", "hang")
        harness.plan("sample-1-1", "exit 1", "exit 1")
        job = harness.ended(self.start(harness, StageName.SAMPLE))
        assert job.phase is JobPhase.FAILED
        assert [pod.exit_code for pod in job.pods if pod.index == 1] == [1, 1]
        assert all(pod.state.ended for pod in job.pods)

    def test_a_configuration_error_of_one_shard_fails_the_attempt_at_once(self, harness: Harness) -> None:
        harness.plan("sample-1-0", "hang")
        harness.plan("sample-1-1", "exit 64")
        job = harness.ended(self.start(harness, StageName.SAMPLE))
        assert job.phase is JobPhase.FAILED
        assert [pod.exit_code for pod in job.pods if pod.index == 1] == [64]

    def test_the_nodes_of_a_gang_fall_together(self, harness: Harness) -> None:
        harness.plan("train-1-0", "hang")
        harness.plan("train-1-1", "exit 1")
        job = harness.ended(self.start(harness, StageName.TRAIN))
        assert job.phase is JobPhase.FAILED
        first, second = sorted(job.pods, key=lambda pod: pod.index)
        assert (first.state, second.exit_code) == (PodState.FAILED, 1)
        assert first.finished_at is not None
        assert second.finished_at is not None
        assert second.finished_at <= first.finished_at

    def test_what_a_job_was_made_with_is_seen_again(self, harness: Harness) -> None:
        actions = launched(harness.seen().run, StageName.SAMPLE)
        harness.apply(*actions)
        job = harness.ended(self.job_of(actions).name)
        assert (job.infrastructure_base, job.application_base) == (0, 0)
        assert job.iteration == 1

    def test_a_writer_whose_status_is_old_loses(self, harness: Harness) -> None:
        old = harness.seen()
        first = RLHFRunStatus(phase=Phase.RUNNING, message="first", start_time=datetime(2026, 1, 1, tzinfo=UTC))
        assert harness.backend.write_status(harness.seen(), first)
        assert not harness.backend.write_status(old, RLHFRunStatus(message="second"))
        assert harness.seen().run.status == first

    def test_removing_the_children_leaves_the_run(self, harness: Harness) -> None:
        harness.ended(self.start(harness, StageName.PREFLIGHT))
        assert harness.seen().observed.children
        assert harness.apply(RemoveChildren())
        harness.until(lambda observed: not observed.jobs and not observed.children)
        assert harness.seen().run.metadata.name == "tiny"

    def test_events_can_always_be_told(self, harness: Harness) -> None:
        assert harness.apply(EmitEvent(EventKind.RUN, None, "Hello."))

    def test_the_core_drives_a_whole_run_through_it(self, harness: Harness) -> None:
        harness.plan("sample-1-1", "exit 143")
        harness.plan("train-1", "exit 1")
        harness.plan("label-1", "no-result")
        for _ in range(20000):
            reconcile(harness.backend, harness.clock)
            status = harness.seen().run.status
            if status is not None and status.phase.finished:
                break
            harness.wait()
        assert status is not None
        assert status.phase is Phase.SUCCEEDED, status.message
        assert status.best_iteration == 1
