"""Deadlines, quotas, refusals: a run that cannot go on now, and when it is looked at again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from rlhf_api.resource.status import ConditionStatus, RLHFRunStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import (
    CreateJob,
    DeleteJob,
)
from rlhf_operator.core.observed import Hindrance, JobPhase, Pod, PodState, Refusal
from rlhf_operator.reconcile import reconcile
from support.story import Story, created


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


def test_words_that_are_longer_than_a_status_may_be_are_cut_wherever_they_stand() -> None:
    """A status with more is refused by an API server, and by whoever reads it from a disk."""
    refusal = Refusal("tiny-i0-preflight-1", Reason.CONFIGURATION_ERROR, "13 problems: " + "x" * 5000)
    story = Story()
    story.until_running(None, StageName.PREFLIGHT)
    status = story.decide(refusals=(refusal,)).status
    assert status.phase is Phase.FAILED
    assert RLHFRunStatus.model_validate(status.to_wire()) == status
    assert status.stages[0].message.startswith("13 problems: ")
    assert status.stages[0].message.endswith("…")


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
