"""Decisions in moments that matter, on a world that does what the test says."""

from __future__ import annotations

from datetime import timedelta

from rlhf_api.resource.status import ConditionStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import (
    CreateConfigMap,
    CreateJob,
    CreateNetworkPolicy,
    CreateService,
    DeleteJob,
    RemoveChildren,
    Topology,
)
from rlhf_operator.core.decide import decide
from rlhf_operator.core.observed import Environment, Observed
from rlhf_operator.reconcile import reconcile
from support.runs import run_of
from support.story import Story, created


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
