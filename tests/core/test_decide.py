"""Decisions in moments that matter, on a world that does what the test says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rlhf_api.resource.status import ConditionStatus, RLHFRunStatus
from rlhf_api.stage import StageResult
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import (
    CreateConfigMap,
    CreateJob,
    CreateNetworkPolicy,
    CreateService,
    DeleteJob,
    EmitEvent,
    RemoveChildren,
    Topology,
)
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.decide import Decision, decide
from rlhf_operator.core.observed import Environment, Hindrance, JobPhase, Observed, Pod, PodState, Refusal
from rlhf_operator.reconcile import reconcile
from support.runs import result_of, run_of
from support.simulation import DONE, End
from support.story import Story


def created(decision: Decision) -> list[type]:
    return [type(action) for action in decision.actions if not isinstance(action, EmitEvent)]


def test_the_first_decision_starts_preflight_and_says_so() -> None:
    story = Story(image="example/image:1")
    decision = story.decide()
    assert created(decision) == [CreateNetworkPolicy, CreateConfigMap, CreateJob]
    status = decision.status
    assert (status.phase, status.stage, status.image) == (Phase.PENDING, StageName.PREFLIGHT, "example/image:1")
    assert status.message == "Stage preflight is starting."
    assert status.start_time == story.world.clock.now()


def test_nothing_is_done_on_an_observation_that_may_be_old() -> None:
    run = run_of()
    decision = decide(run, Observed(live=False), Story().world.clock.now())
    assert decision.observe_live
    assert decision.actions == ()


def test_the_image_is_pinned_for_the_whole_run() -> None:
    story = Story()
    story.world.environment = Environment(image="operator:1")
    story.until_running(None, StageName.PREFLIGHT)
    story.world.environment = Environment(image="operator:2")
    story.to_the_end()
    assert {job.image for job in story.world.created} == {"operator:1"}


def test_a_gang_gets_a_service_and_a_sharded_stage_its_indexes() -> None:
    train = {"compute": {"nodes": 2, "processesPerNode": 4, "pod": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}}
    story = Story(train=train, sample={"shards": 3, "parallelism": 2}, iterations=1)
    story.to_the_end()
    shapes = {job.stage: job.shape for job in story.world.created}
    assert (shapes[StageName.TRAIN].topology, shapes[StageName.TRAIN].completions) == (Topology.GANG, 2)
    sample = shapes[StageName.SAMPLE]
    assert (sample.topology, sample.completions, sample.parallelism, sample.backoff_limit_per_index) == (Topology.SHARDED, 3, 2, 2)
    train_job = next(job for job in story.world.created if job.stage is StageName.TRAIN)
    assert train_job.pod.resources is not None
    assert train_job.pod.resources.limits == {"nvidia.com/gpu": 4}
    assert CreateService.__name__ not in {type(action).__name__ for action in story.world.created}


def test_suspend_deletes_the_job_and_resume_is_a_new_attempt_uncounted() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    story.world.change_spec(suspend=True)
    assert created(story.decide()) == [DeleteJob]
    story.go_on(lambda: story.status.phase is Phase.SUSPENDED and not story.world.jobs.get("tiny-i1-train-1"))
    assert story.condition(ConditionType.SUSPENDED) == (ConditionStatus.TRUE, Reason.SUSPENDED)
    story.world.change_spec(suspend=False)
    story.to_the_end()
    train = story.stage(1, StageName.TRAIN)
    assert (train.attempt, train.infrastructure_retries, train.application_retries) == (3, 0, 0)
    attempts = [(job.attempt, job.resolving) for job in story.world.created if job.stage is StageName.TRAIN]
    assert attempts == [(1, False), (2, True), (3, False)]


def test_a_suspended_run_starts_nothing() -> None:
    story = Story(suspend=True)
    decision = story.decide()
    assert (created(decision), decision.status.phase) == ([], Phase.SUSPENDED)


def test_cancel_stops_the_job_and_cannot_be_taken_back() -> None:
    story = Story()
    story.until_running(1, StageName.TRAIN)
    story.world.change_spec(cancel=True)
    story.to_the_end()
    assert story.status.phase is Phase.CANCELLED
    story.go_on(lambda: "tiny-i1-train-1" not in story.world.jobs)
    jobs = len(story.world.created)
    story.world.change_spec(cancel=False)
    for _ in range(5):
        reconcile(story.world, story.world.clock)
    assert (story.status.phase, len(story.world.created)) == (Phase.CANCELLED, jobs)


def test_a_finished_run_never_starts_again_also_when_its_iterations_are_raised() -> None:
    story = Story(iterations=1)
    story.to_the_end()
    story.world.change_spec(iterations=5)
    jobs = len(story.world.created)
    for _ in range(5):
        reconcile(story.world, story.world.clock)
    assert (story.status.phase, len(story.world.created)) == (Phase.SUCCEEDED, jobs)


def test_iterations_raised_while_it_works_are_run() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    story.world.change_spec(iterations=2)
    assert story.to_the_end().iterations[-1].number == 2
    assert story.status.prompt_iterations == 1


def test_the_ttl_removes_the_children_and_nothing_starts_again() -> None:
    story = Story(iterations=1, ttlSecondsAfterFinished=100)
    story.to_the_end()
    decision = story.decide()
    assert (created(decision), decision.requeue_after) == ([], timedelta(seconds=100))
    story.world.clock.advance(100)
    assert created(story.decide()) == [RemoveChildren]
    reconcile(story.world, story.world.clock)
    assert (created(story.decide()), story.status.phase) == ([], Phase.SUCCEEDED)


def test_the_active_deadline_counts_work_and_neither_queue_nor_suspension() -> None:
    story = Story(activeDeadlineSeconds=1000, iterations=1)
    story.until_running(None, StageName.EVALUATE)
    story.world.clock.advance(500)
    story.world.change_spec(suspend=True)
    story.go_on(lambda: not story.world.jobs.get("tiny-i0-evaluate-1"))
    story.world.clock.advance(10_000)
    story.world.change_spec(suspend=False)
    story.hang_at = None
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.RUNNING)
    assert story.status.phase is Phase.RUNNING
    story.until_running(1, StageName.LABEL)
    story.world.clock.advance(1000)
    story.to_the_end()
    assert story.condition(ConditionType.FAILED) == (ConditionStatus.TRUE, Reason.DEADLINE_EXCEEDED)
    assert "activeDeadlineSeconds (1000 s)" in story.status.message


def test_the_pending_deadline_ends_a_run_whose_pod_cannot_start() -> None:
    story = Story(pendingDeadlineSeconds=600)
    reconcile(story.world, story.world.clock)
    [simulated] = story.world.jobs.values()
    simulated.job = replace(simulated.job, hindrance=Hindrance(Reason.UNSCHEDULABLE, "0/3 nodes have 8 GPUs free."))
    decision = story.decide()
    assert decision.status.message == "Stage preflight waits: 0/3 nodes have 8 GPUs free."
    story.world.clock.advance(580)
    assert story.decide().requeue_after == timedelta(seconds=20)
    story.world.clock.advance(20)
    decision = story.decide()
    assert decision.status.phase is Phase.FAILED
    assert "pendingDeadlineSeconds (600 s). 0/3 nodes have 8 GPUs free." in decision.status.message
    assert created(decision) == [DeleteJob]


def test_waiting_for_quota_is_not_pending() -> None:
    story = Story(pendingDeadlineSeconds=600)
    reconcile(story.world, story.world.clock)
    [simulated] = story.world.jobs.values()
    waiting = Hindrance(Reason.WAITING_FOR_QUOTA, "Kueue has not admitted it.")
    simulated.job = replace(simulated.job, phase=JobPhase.SUSPENDED, pods=(), hindrance=waiting)
    story.world.clock.advance(100_000)
    decision = story.decide()
    assert decision.status.phase in (Phase.PENDING, Phase.RUNNING)
    assert Reason.WAITING_FOR_QUOTA in {condition.reason for condition in decision.status.conditions}


def test_a_refusal_is_told_and_tried_again() -> None:
    story = Story()
    refusal = Refusal("tiny-i0-preflight-1", Reason.QUOTA_EXCEEDED, "exceeded quota: pods.")
    decision = story.decide(refusals=(refusal,))
    assert CreateJob in created(decision)
    assert decision.status.message == "Stage preflight cannot start yet: exceeded quota: pods."


@pytest.mark.parametrize(("age", "seconds"), [(0, 5), (20, 5), (40, 10), (240, 60), (86_400, 60)])
def test_what_is_refused_for_long_is_tried_less_and_less_often(age: float, seconds: float) -> None:
    story = Story()
    refusals = tuple(
        Refusal(name, Reason.QUOTA_EXCEEDED, "exceeded quota: pods.", story.world.clock.now() - timedelta(seconds=since))
        for name, since in (("tiny-i0-preflight-1", age), ("tiny", 0))
    )
    decision = story.decide(refusals=refusals)
    assert CreateJob in created(decision)
    assert decision.requeue_after == timedelta(seconds=seconds)


def test_a_refusal_for_the_manifests_sake_ends_the_run_with_its_words() -> None:
    words = 'Job.batch "tiny-i0-preflight-1" is invalid: spec.template.spec.tolerations[0].operator: Invalid value: "Equal".'
    refusal = Refusal("tiny-i0-preflight-1", Reason.CONFIGURATION_ERROR, words)
    story = Story()
    decision = story.decide(refusals=(refusal,))
    assert (decision.status.phase, created(decision)) == (Phase.FAILED, [])
    assert decision.status.message == words
    story.world.change_spec(suspend=True)
    assert story.decide(refusals=(refusal,)).status.phase is Phase.SUSPENDED


@pytest.mark.parametrize(
    ("pods", "hindrance", "age", "seconds"),
    [
        ((), None, 0, 5),
        ((Pod(PodState.PENDING),), None, 29, 5),
        ((Pod(PodState.PENDING),), None, 30, 30),
        ((Pod(PodState.RUNNING), Pod(PodState.PENDING)), Hindrance(Reason.UNSCHEDULABLE, "0/3 nodes are available."), 0, 30),
        ((Pod(PodState.RUNNING),), None, 0, None),
    ],
)
def test_a_job_that_waits_for_pods_is_looked_at_again(
    pods: tuple[Pod, ...], hindrance: Hindrance | None, age: int, seconds: int | None
) -> None:
    story = Story()
    reconcile(story.world, story.world.clock)
    [simulated] = story.world.jobs.values()
    simulated.job = replace(simulated.job, pods=pods, hindrance=hindrance)
    story.world.clock.advance(age)
    assert story.decide().requeue_after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("phase", [JobPhase.COMPLETE, JobPhase.FAILED])
def test_how_an_attempt_ended_is_concluded_from_a_live_observation_only(phase: JobPhase) -> None:
    story = Story()
    story.until_running(None, StageName.PREFLIGHT)
    before = story.status
    [simulated] = story.world.jobs.values()
    simulated.job = replace(simulated.job, phase=phase, pods=())
    decision = story.decide(live=False)
    assert (decision.observe_live, decision.status) == (True, before)
    assert story.decide().status != before


def test_who_made_an_artifact_is_concluded_from_a_live_observation_only() -> None:
    """A watch may tell of the worker that found it before it tells of the one that made it, and a run removes only what it made."""
    story = Story(iterations=1, train={"compute": {"nodes": 2, "processesPerNode": 1}})
    story.until_running(1, StageName.TRAIN)
    [simulated] = [entry for entry in story.world.jobs.values() if entry.job.key == (1, StageName.TRAIN, 1)]
    running, other = simulated.job.pods
    made = replace(running, state=PodState.SUCCEEDED, exit_code=0, result=result_of(simulated.action.config))
    found = replace(made, index=other.index, result=result_of(simulated.action.config).model_copy(update={"found": True}))
    simulated.job = replace(simulated.job, pods=(running, found))
    before = story.status
    decision = story.decide(live=False)
    assert (decision.observe_live, decision.status) == (True, before)
    simulated.job = replace(simulated.job, pods=(made, found))
    stages = {(number, entry.name): entry for number, entry in stages_of(story.decide().status)}
    assert (stages[1, StageName.TRAIN].phase, stages[1, StageName.TRAIN].adopted) == (Phase.SUCCEEDED, False)


def test_the_next_attempt_waits_until_no_pod_of_the_former_is_left() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    simulated = story.world.jobs["tiny-i1-train-1"]
    [pod] = simulated.job.pods
    ended = replace(pod, state=PodState.FAILED, exit_code=143, finished_at=story.world.clock.now())
    simulated.job = replace(simulated.job, phase=JobPhase.FAILURE_TARGET, pods=(ended,))
    assert created(story.decide()) == []
    simulated.job = replace(simulated.job, phase=JobPhase.FAILED, pods=(ended, replace(pod, state=PodState.TERMINATING)))
    assert created(story.decide()) == []
    simulated.job = replace(simulated.job, pods=(ended,), deleting=True)
    assert created(story.decide()) == []
    simulated.job = replace(simulated.job, deleting=False)
    assert CreateJob in created(story.decide())


def test_pods_that_a_sharded_job_replaces_spend_the_infrastructure_budget() -> None:
    story = Story(iterations=1, sample={"shards": 2, "parallelism": 2}, retry={"infrastructure": 2})
    story.until_running(1, StageName.SAMPLE)
    simulated = story.world.jobs["tiny-i1-sample-1"]
    preempted = Pod(PodState.FAILED, 0, 143, disrupted=True, created_at=story.world.clock.now())
    for count in (1, 2):
        simulated.job = replace(simulated.job, pods=(*simulated.job.pods, preempted))
        reconcile(story.world, story.world.clock)
        assert story.stage(1, StageName.SAMPLE).infrastructure_retries == count
    simulated.job = replace(simulated.job, pods=(*simulated.job.pods, preempted))
    decision = story.decide()
    assert (decision.status.phase, created(decision)) == (Phase.FAILED, [DeleteJob])
    assert "retry.infrastructure is 2" in decision.status.message
    assert "It ended with exit code 143" in decision.status.message


def test_a_sharded_job_that_breaks_while_others_run_is_told_in_the_words_of_the_pod_that_broke() -> None:
    story = Story(iterations=1, sample={"shards": 2, "parallelism": 2}, retry={"application": 0})
    story.until_running(1, StageName.SAMPLE)
    simulated = story.world.jobs["tiny-i1-sample-1"]
    said = StageResult(stage=StageName.SAMPLE, problem="No space left on the disk.")
    broken = Pod(PodState.FAILED, 0, 1, created_at=story.world.clock.now(), result=said)
    stopped = Pod(PodState.FAILED, 1, 143, created_at=story.world.clock.now())
    simulated.job = replace(simulated.job, pods=(broken, stopped))
    decision = story.decide()
    assert decision.status.phase is Phase.FAILED
    assert "It ended with exit code 1: No space left on the disk." in decision.status.message


def test_a_pause_names_the_approval_that_it_waits_for() -> None:
    gates = [{"name": "look", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}]
    story = Story(iterations=1, gates=gates)
    story.go_on(lambda: story.status.phase is Phase.PAUSED)
    assert "{gate: look, iteration: 1}" in story.status.message
    assert story.condition(ConditionType.PROGRESSING) == (ConditionStatus.FALSE, Reason.GATE_PAUSED)


def test_a_deleted_run_is_left_to_the_garbage_collector() -> None:
    run = run_of(None, deletionTimestamp="2026-01-01T00:00:00Z")
    decision = decide(run, Observed(live=True), Story().world.clock.now())
    assert decision.actions == ()


def test_times_and_gpu_seconds_are_booked_once() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    story.world.clock.advance(1000)
    story.end = End(137, speaks=False)
    story.hang_at = None
    story.go_on(lambda: story.stage(1, StageName.TRAIN).attempt == 2)
    lost = story.stage(1, StageName.TRAIN).lost_gpu_seconds
    assert lost >= 1000
    story.end = DONE
    status = story.to_the_end()
    train = story.stage(1, StageName.TRAIN)
    assert train.lost_gpu_seconds == lost
    assert train.gpu_seconds > lost
    assert status.totals.gpu_seconds == pytest.approx(sum(stage.gpu_seconds for _, stage in stages_of(status)))
    assert status.totals.lost_gpu_seconds == pytest.approx(lost)


def test_the_status_names_the_best_iterate_and_its_checkpoint_as_they_come() -> None:
    story = Story(iterations=2)
    story.until_running(1, StageName.SAMPLE)
    assert (story.status.best_iteration, story.status.win_rate) == (0, 0.5)
    story.until_running(2, StageName.SAMPLE)
    assert (story.status.best_iteration, story.status.win_rate) == (1, 0.6)
    assert story.status.checkpoint is not None
    train = story.stage(1, StageName.TRAIN).artifact
    assert train is not None
    assert story.status.checkpoint.url == train.url
    assert story.status.checkpoint.url.startswith("s3://bucket/tiny/policy/")


def test_a_condition_keeps_its_time_while_it_stays_the_same() -> None:
    story = Story(iterations=1)
    story.until_running(None, StageName.PREFLIGHT)
    first = {item.type: item.last_transition_time for item in story.status.conditions}
    story.until_running(1, StageName.TRAIN)
    later = {item.type: item.last_transition_time for item in story.status.conditions}
    assert later[ConditionType.PROGRESSING] == first[ConditionType.PROGRESSING]


def test_an_iteration_takes_so_little_of_the_status_that_fifty_fit_into_an_object() -> None:
    def size(iterations: int) -> int:
        status = Story(iterations=iterations).to_the_end()
        RLHFRunStatus.model_validate(status.to_wire())
        return len(status.model_dump_json(by_alias=True, exclude_none=True))

    # The API server takes objects of 1.5 MB; an iteration may hold 24 metrics, of which these runs report 2.
    assert size(6) - size(5) < 6_000


def with_pods(story: Story, iteration: int | None, stage: StageName, *pods: Pod) -> Decision:
    """The decision where this stage's Job is still active, is the only one, and has these pods."""
    job = story.world.observe(live=True).observed.job(iteration, stage, 1)  # type: ignore[union-attr]
    assert job is not None
    return story.decide(jobs=(replace(job, phase=JobPhase.ACTIVE, pods=pods),))


def sealed_by(story: Story, iteration: int | None, stage: StageName) -> Pod:
    """A pod of this stage that ended well just now, with the artifact."""
    config = next(entry.action.config for entry in story.world.jobs.values() if entry.job.key == (iteration, stage, 1))
    now = story.world.clock.now()
    return Pod(PodState.SUCCEEDED, exit_code=0, started_at=now, finished_at=now, result=result_of(config))


def test_a_job_whose_pods_all_ended_well_is_not_waited_for_and_keeps_its_logs() -> None:
    story = Story(iterations=1)
    story.until_running(1, StageName.TRAIN)
    decision = with_pods(story, 1, StageName.TRAIN, sealed_by(story, 1, StageName.TRAIN))
    assert CreateJob in created(decision)
    assert DeleteJob not in created(decision)


def test_the_pods_of_a_stage_that_is_done_may_end_by_themselves_for_a_moment() -> None:
    """A shard found all others committed and sealed the artifact; the last of them is about to end."""
    story = Story(iterations=1, sample={"shards": 2, "parallelism": 2})
    story.until_running(1, StageName.SAMPLE)
    sealed = sealed_by(story, 1, StageName.SAMPLE)
    at_work = Pod(PodState.RUNNING, index=1, started_at=sealed.started_at)
    waits = with_pods(story, 1, StageName.SAMPLE, sealed, at_work)
    assert created(waits) == []
    assert waits.requeue_after is not None
    assert sealed.finished_at is not None
    earlier = replace(sealed, finished_at=sealed.finished_at - waits.requeue_after)
    assert created(with_pods(story, 1, StageName.SAMPLE, earlier, at_work)) == [DeleteJob]
