"""How an attempt is seen to have ended, and what becomes of its Job."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf_api.stage import PromptIdentity, StageResult
from rlhf_api.words import Phase, StageName
from rlhf_operator.core.actions import (
    CreateJob,
    DeleteJob,
)
from rlhf_operator.core.chain.references import PROMPT_IDENTITY
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.core.decide import Decision
from rlhf_operator.core.observed import JobPhase, Pod, PodState
from rlhf_operator.reconcile import reconcile
from support.runs import result_of
from support.story import Story, created


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


@pytest.mark.parametrize("identity", PromptIdentity)
def test_a_run_whose_prompts_have_tools_gets_the_format_that_older_versions_leave_alone(identity: PromptIdentity) -> None:
    """With the write that takes the identity in: no moment in between has one without the other."""
    story = Story()
    story.until_running(None, StageName.PREFLIGHT)
    [simulated] = story.world.jobs.values()
    resolved = {PROMPT_IDENTITY: str(identity)}
    result = StageResult(stage=StageName.PREFLIGHT, attempt=1, resolved=resolved)
    [pod] = simulated.job.pods
    ended = replace(pod, state=PodState.SUCCEEDED, exit_code=0, result=result)
    simulated.job = replace(simulated.job, phase=JobPhase.COMPLETE, pods=(ended,))
    status = story.decide().status
    assert status.resolved == resolved
    assert status.format == (2 if identity is PromptIdentity.RENDERED_WITH_TOOLS else None)
