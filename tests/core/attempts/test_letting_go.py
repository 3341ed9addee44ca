"""Pods in which a sidecar goes on after the stage's container: the stage has ended, and what they hold is let go."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rlhf_api.resource.status import StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.core.actions import CreateJob, DeleteJob, DeletePod, EmitEvent, EventKind
from rlhf_operator.core.decide import Decision, decide
from rlhf_operator.core.observed import JobPhase, Pod, PodState
from rlhf_operator.reconcile import reconcile
from support.story import Story, created
from support.tape import DONE, DONE_AND_LOST, End

GANG = {"compute": {"nodes": 2, "processesPerNode": 1}}


def lingering(stage: StageName, end: End, **changes: Any) -> Story:
    """The pods of this stage have ended just now, in this way, and their sidecars go on."""
    story = Story(iterations=1, **changes)
    story.until_running(1, stage)
    story.world.sidecar = "istio-proxy"
    story.end, story.hang_at = end, None
    now = story.world.clock.now()
    story.world.step()
    story.world.clock.time = now + timedelta(seconds=1)
    return story


def pods(story: Story) -> list[Pod]:
    return [pod for job in story.world.present() for pod in job.pods if pod.lingers]


@pytest.mark.parametrize(
    ("end", "phase", "reason"),
    [
        (DONE, Phase.RUNNING, Reason.RUNNING),
        (DONE_AND_LOST, Phase.RUNNING, Reason.RUNNING),
        (End(64), Phase.FAILED, Reason.CONFIGURATION_ERROR),
        (End(1), Phase.FAILED, Reason.RETRY_BUDGET_EXHAUSTED),
        (End(137, reason="OOMKilled", speaks=False), Phase.FAILED, Reason.RETRY_BUDGET_EXHAUSTED),
        (End(143), Phase.RUNNING, Reason.RUNNING),
        (End(75), Phase.RUNNING, Reason.RUNNING),
        (End(137, speaks=False), Phase.RUNNING, Reason.RUNNING),
    ],
    ids=str,
)
@pytest.mark.parametrize("train", [{}, GANG], ids=["one node", "two nodes"])
def test_the_end_of_the_stage_s_container_is_the_end_of_the_attempt(
    end: End, phase: Phase, reason: Reason, train: dict[str, Any]
) -> None:
    """Exactly as if the pod had ended with it."""
    budget = {"application": 0, "backoffSeconds": 0}
    meshed = lingering(StageName.TRAIN, end, train=train, retry=budget)
    plain = Story(iterations=1, train=train, retry=budget)
    plain.until_running(1, StageName.TRAIN)
    plain.end, plain.hang_at = end, None
    while not all(simulated.job.ended for simulated in plain.world.jobs.values()):
        plain.world.step()
    found, expected = (Story.decide(story).status for story in (meshed, plain))
    assert (found.phase, found.conditions[-1].reason) == (phase, reason)
    assert ending(found.iterations[0].stages[-1]) == ending(expected.iterations[0].stages[-1])
    # Where a node's end stops the other, that one has no word of its own, and what it did is looked up.
    assert train or found.iterations[0].stages[-1].resolving == expected.iterations[0].stages[-1].resolving


def ending(stage: StageStatus) -> tuple[object, ...]:
    retries = (stage.infrastructure_retries, stage.application_retries)
    return stage.name, stage.phase, stage.attempt, retries, stage.artifact, stage.reason, stage.message


@pytest.mark.parametrize("end", [DONE, End(143), End(1), End(64)], ids=str)
def test_its_pods_may_end_by_themselves_for_a_moment_and_are_then_let_go(end: End) -> None:
    story = lingering(StageName.TRAIN, end)
    [pod] = pods(story)
    assert pod.finished_at is not None
    story.world.clock.time = pod.finished_at + timedelta(seconds=4)
    decision = reconciled(story)
    assert created(decision) == []
    assert decision.requeue_after == timedelta(seconds=6)
    story.world.clock.advance(6)
    decision = story.decide()
    assert created(decision) == [DeleteJob, DeletePod]
    assert [action for action in decision.actions if isinstance(action, DeletePod)] == [DeletePod(pod.name, pod.uid)]
    [told] = [action for action in decision.actions if isinstance(action, EmitEvent) and action.kind is EventKind.WARNING]
    assert told.message.startswith(f"The stage's container in pod {pod.name} has ended, and istio-proxy goes on in it.")
    assert "native sidecar" in told.message


def reconciled(story: Story) -> Decision:
    found = reconcile(story.world, story.world.clock)
    assert found is not None
    return found.decision


def test_the_next_attempt_starts_when_the_pods_of_the_former_are_gone_and_what_is_waited_for_is_told() -> None:
    story = lingering(StageName.TRAIN, End(143))
    reconcile(story.world, story.world.clock)
    simulated = story.world.jobs["tiny-i1-train-1"]
    story.world.clock.advance(20)
    simulated.job = replace(simulated.job, deleting=True)
    decision = story.decide()
    assert created(decision) == []
    assert decision.status.message.startswith(
        "Stage train of iteration 1 of 1 waits until the pods of tiny-i1-train-1 have ended. The"
    )
    assert "istio-proxy goes on in it. It ended with exit code 143" in decision.status.message
    del story.world.jobs["tiny-i1-train-1"]
    assert CreateJob in created(story.decide())


def test_gpus_are_not_held_through_a_back_off() -> None:
    story = lingering(StageName.TRAIN, End(1), retry={"application": 2, "backoffSeconds": 3000})
    decision = reconciled(story)
    assert decision.requeue_after is not None
    assert decision.requeue_after <= timedelta(seconds=10)
    story.world.clock.advance(10)
    assert created(story.decide()) == [DeleteJob, DeletePod]
    assert "waits until" in story.status.message


def test_gpu_seconds_are_booked_until_the_pod_is_gone() -> None:
    story = lingering(StageName.TRAIN, End(1), retry={"application": 2, "backoffSeconds": 0})
    [pod] = pods(story)
    assert pod.started_at is not None
    reconcile(story.world, story.world.clock)
    booked, worked = story.stage(1, StageName.TRAIN), story.status.totals.work_seconds
    assert [(entry.pod, entry.gpus, entry.lost) for entry in booked.held] == [(pod.name, 1, True)]
    assert booked.gpu_seconds == (story.world.clock.now() - pod.started_at).total_seconds()
    story.world.clock.advance(500)
    old = replace(story.world.observe(live=True).observed, jobs=(), live=False)  # type: ignore[union-attr]
    assert decide(story.run, old, story.world.clock.now()).observe_live
    reconcile(story.world, story.world.clock)
    assert story.stage(1, StageName.TRAIN).gpu_seconds == booked.gpu_seconds
    del story.world.jobs["tiny-i1-train-1"]
    reconcile(story.world, story.world.clock)
    held = (story.world.clock.now() - pod.started_at).total_seconds()
    train = story.stage(1, StageName.TRAIN)
    assert (train.held, train.gpu_seconds, train.lost_gpu_seconds) == ([], held, held)
    assert story.status.totals.lost_gpu_seconds == held
    # Against the deadline counts what was worked.
    assert story.status.totals.work_seconds == worked


def test_what_a_finished_run_s_pods_hold_is_let_go_and_booked() -> None:
    story = lingering(StageName.TRAIN, End(64))
    decision = reconciled(story)
    assert (decision.status.phase, created(decision)) == (Phase.FAILED, [])
    before = story.stage(1, StageName.TRAIN).gpu_seconds
    story.world.clock.advance(10)
    assert created(story.decide()) == [DeleteJob, DeletePod]
    story.go_on(lambda: not story.world.jobs.get("tiny-i1-train-1"))
    reconcile(story.world, story.world.clock)
    train = story.stage(1, StageName.TRAIN)
    assert train.held == []
    assert train.gpu_seconds >= before + 10
    assert story.condition(ConditionType.FAILED) is not None


def test_a_suspended_run_lets_go_what_its_last_attempt_left() -> None:
    story = lingering(StageName.TRAIN, DONE)
    story.world.change_spec(suspend=True)
    decision = reconciled(story)
    assert (decision.status.phase, created(decision)) == (Phase.SUSPENDED, [])
    assert decision.requeue_after is not None
    story.world.clock.advance(10)
    assert created(story.decide()) == [DeleteJob, DeletePod]


def gang(story: Story, *changed: dict[str, Any]) -> Decision:
    """The decision where the nodes of the gang at work are so."""
    job = story.world.observe(live=True).observed.job(1, StageName.TRAIN, 1)  # type: ignore[union-attr]
    assert job is not None
    nodes = tuple(replace(pod, **fields) for pod, fields in zip(job.pods, changed, strict=True))
    return story.decide(jobs=(replace(job, pods=nodes),))


def test_one_death_is_everybody_s_in_a_gang_once_the_others_are_told_of() -> None:
    """Kubelets tell of pods in any order, and the first to end is the cause."""
    story = Story(iterations=1, train=GANG)
    story.until_running(1, StageName.TRAIN)
    now = story.world.clock.now()
    consequence = {"state": PodState.FAILED, "exit_code": 1, "finished_at": now, "beside": ("istio-proxy",)}
    cause = consequence | {"exit_code": 143, "finished_at": now - timedelta(seconds=2)}
    at_work: dict[str, Any] = {}
    decision = gang(story, consequence, at_work)
    assert (decision.status.iterations[0].stages[-1].phase, decision.requeue_after) == (Phase.RUNNING, timedelta(seconds=10))
    train = gang(story, consequence, cause).status.iterations[0].stages[-1]
    assert (train.attempt, train.infrastructure_retries, train.application_retries) == (2, 1, 0)
    story.world.clock.advance(10)
    decision = gang(story, consequence, at_work)
    train = decision.status.iterations[0].stages[-1]
    assert (train.attempt, train.application_retries) == (2, 1)
    assert len(train.held) == 2
    # A node that is at work has its own time, for a checkpoint.
    assert created(decision) == [DeleteJob, DeletePod]


def sharded(**changes: Any) -> Story:
    story = Story(iterations=1, sample={"shards": 3, "parallelism": 3}, retry={"application": 2, "backoffSeconds": 0}, **changes)
    story.until_running(1, StageName.SAMPLE)
    return story


def shards(story: Story, *changed: dict[str, Any]) -> Decision:
    """The decision where the shards at work are so; it is carried out."""
    simulated = story.world.jobs["tiny-i1-sample-1"]
    pods = tuple(replace(pod, **fields) for pod, fields in zip(simulated.job.pods, changed, strict=True))
    simulated.job = replace(simulated.job, pods=pods)
    return reconciled(story)


def ended(story: Story, code: int, seconds: float = 0.0) -> dict[str, Any]:
    at = story.world.clock.now() - timedelta(seconds=seconds)
    state = PodState.FAILED if code else PodState.SUCCEEDED
    return {"state": state, "exit_code": code, "finished_at": at, "beside": ("linkerd-proxy",)}


AT_WORK: dict[str, Any] = {}


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_shard_that_has_ended_is_let_go_while_the_others_work(code: int) -> None:
    """Its Job then does what it would have done: an index that ended well is done, another is tried again."""
    story = sharded()
    decision = shards(story, ended(story, code, seconds=4), AT_WORK, AT_WORK)
    assert (created(decision), decision.requeue_after) == ([], timedelta(seconds=6))
    assert "linkerd-proxy goes on in it." in decision.status.message
    story.world.clock.advance(6)
    pod = story.world.jobs["tiny-i1-sample-1"].job.pods[0]
    decision = reconciled(story)
    assert created(decision) == [DeletePod]
    sample = story.stage(1, StageName.SAMPLE)
    assert (sample.phase, sample.attempt) == (Phase.RUNNING, 1)
    assert (sample.application_retries, sample.infrastructure_retries) == (int(code == 1), int(code == 143))
    assert pod.started_at is not None
    held = (story.world.clock.now() - pod.started_at).total_seconds()
    assert (sample.gpu_seconds, sample.lost_gpu_seconds) == (held, held if code else 0.0)
    assert [entry.pod for entry in sample.held] == [pod.name]


def test_what_a_shard_held_that_was_let_go_is_booked_once() -> None:
    story = sharded()
    began = {pod.name: pod.started_at for pod in story.world.jobs["tiny-i1-sample-1"].job.pods}
    shards(story, ended(story, 0, seconds=10), AT_WORK, AT_WORK)
    name = story.stage(1, StageName.SAMPLE).held[0].pod
    story.world.clock.advance(5)
    simulated = story.world.jobs["tiny-i1-sample-1"]
    story.world.shards.add((simulated.action.config.fingerprint, 3, 0))
    left = Pod(PodState.SUCCEEDED, 0, 0)
    simulated.job = replace(simulated.job, pods=tuple(left if pod.name == name else pod for pod in simulated.job.pods))
    reconcile(story.world, story.world.clock)
    first = story.world.clock.now()
    assert story.stage(1, StageName.SAMPLE).held == []
    story.end, story.hang_at = DONE, None
    story.go_on(lambda: story.stage(1, StageName.SAMPLE).phase is Phase.SUCCEEDED)
    ends = {pod.name: pod.finished_at for pod in simulated.job.pods} | {name: first}
    spans = [end - began[pod] for pod, end in ends.items() if pod in began and end is not None]  # type: ignore[operator]
    assert len(spans) == 3
    assert story.stage(1, StageName.SAMPLE).gpu_seconds == pytest.approx(sum(span.total_seconds() for span in spans))


def test_a_configuration_error_of_a_shard_ends_the_run_at_once() -> None:
    story = sharded()
    decision = shards(story, ended(story, 64), AT_WORK, AT_WORK)
    assert (decision.status.phase, created(decision)) == (Phase.FAILED, [DeleteJob, DeletePod])


def test_a_sharded_attempt_is_done_when_all_its_shards_are_though_its_job_waits() -> None:
    story = sharded()
    unread = [ended(story, 0) for _ in range(3)]
    assert shards(story, *unread[:2], AT_WORK).status.iterations[0].stages[-1].phase is Phase.RUNNING
    sample = shards(story, *unread).status.iterations[0].stages[-1]
    # None of them left a word: the artifact is looked up.
    assert (sample.phase, sample.attempt, sample.resolving) == (Phase.PENDING, 2, True)
    assert all(job.job.phase is JobPhase.ACTIVE for job in story.world.jobs.values() if job.job.stage is StageName.SAMPLE)


def test_a_shard_that_was_done_again_for_its_sidecar_s_sake_keeps_its_pod_unless_its_place_is_needed() -> None:
    """A sidecar that never ends well would else cost a retry a minute."""
    story = sharded()
    simulated = story.world.jobs["tiny-i1-sample-1"]
    again = Pod(PodState.FAILED, 0, disrupted=True)
    simulated.job = replace(simulated.job, pods=(again, *simulated.job.pods))
    decision = shards(story, {}, ended(story, 0, seconds=60), AT_WORK, AT_WORK)
    assert created(decision) == []
    assert "linkerd-proxy goes on in it." in decision.status.message
    simulated.job = replace(simulated.job, completions=4)
    assert created(story.decide()) == [DeletePod]


def test_an_index_without_a_pod_is_not_done() -> None:
    story = sharded()
    simulated = story.world.jobs["tiny-i1-sample-1"]
    simulated.job = replace(simulated.job, completions=4)
    sample = shards(story, *[ended(story, 0) for _ in range(3)]).status.iterations[0].stages[-1]
    assert (sample.phase, sample.attempt) == (Phase.RUNNING, 1)
