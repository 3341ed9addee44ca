"""How JSON of Jobs, Pods and Events is read: tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rlhf_api.words import Reason, StageName
from rlhf_operator.core.attempts.outcome import FailureClass, application_failures, classify, ignored_pods
from rlhf_operator.core.jobs.names import attempt_of, child_name
from rlhf_operator.core.observed import Job, JobPhase, Pod, PodState
from rlhf_operator.kubernetes.objects.hindrance import hindrance_of, needs_events
from rlhf_operator.kubernetes.objects.keys import Kind
from rlhf_operator.kubernetes.objects.observation import job_of, own_jobs, pod_of, pods_of, unknown_in
from rlhf_operator.kubernetes.objects.trim import trimmed
from support.runs import run_of

TIME = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T01:00:00Z"
Json = dict[str, Any]


def job(*, spec: Json | None = None, status: Json | None = None, labels: Json | None = None) -> Json:
    own = {"rlhf.dev/iteration": "1", "rlhf.dev/stage": "train", "rlhf.dev/attempt": "2"}
    metadata = {"name": "tiny-i1-train-2", "uid": "u", "creationTimestamp": TIME, "labels": own | (labels or {}), "annotations": {}}
    return {"metadata": metadata, "spec": {"completions": 1, "parallelism": 1} | (spec or {}), "status": status or {}}


def pod(
    phase: str = "Running",
    state: Json | None = None,
    *,
    index: int = 0,
    conditions: list[Json] | None = None,
    deleted: bool = False,
    annotations: Json | None = None,
    beside: Json | None = None,
    **status: Any,
) -> Json:
    metadata: Json = {"name": f"p-{index}", "creationTimestamp": TIME, "ownerReferences": [{"uid": "u", "controller": True}]}
    metadata["annotations"] = {"batch.kubernetes.io/job-completion-index": str(index), **(annotations or {})}
    if deleted:
        metadata["deletionTimestamp"] = TIME
    containers = [{"name": "stage", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]
    statuses = [] if state is None else [{"name": "side-car", "state": beside or state}, {"name": "stage", "state": state}]
    return {
        "metadata": metadata,
        "spec": {"containers": containers},
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": conditions or [], **status},
    }


def ended(code: int, reason: str = "Error", message: str = "") -> Json:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "startedAt": TIME, "finishedAt": LATER}}


RUNS: Json = {"running": {"startedAt": TIME}}


def condition(kind: str, status: str = "True", **fields: str) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": LATER, **fields}


def observed(raw: Json, *pods: Json) -> Job:
    return job_of(raw, pods, None)


@pytest.mark.parametrize(
    ("raw", "state", "failure"),
    [
        (pod("Pending"), PodState.PENDING, None),
        (pod("Running", {"running": {"startedAt": TIME}}), PodState.RUNNING, None),
        (pod("Running", {"running": {"startedAt": TIME}}, deleted=True), PodState.TERMINATING, None),
        # Its Job was taken for one that is left behind, and removed with its log, in the second until a kubelet gave it its phase.
        (pod("Running", ended(0, "Completed")), PodState.SUCCEEDED, None),
        (pod("Running", ended(1)), PodState.RUNNING, None),
        # A service mesh's container goes on, and the pod with it.
        (pod("Running", ended(0, "Completed"), beside=RUNS), PodState.SUCCEEDED, None),
        (pod("Running", ended(64), beside=RUNS), PodState.FAILED, FailureClass.CONFIGURATION),
        (pod("Running", ended(1), beside=RUNS), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Running", ended(137, "OOMKilled"), beside=RUNS), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Running", ended(143), beside=RUNS), PodState.FAILED, FailureClass.INFRASTRUCTURE),
        (pod("Pending", ended(1), beside={"waiting": {"reason": "ImagePullBackOff"}}), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Running", ended(1), beside=RUNS, deleted=True), PodState.TERMINATING, None),
        # It was told to end, and did not end well: that is not the stage's failure.
        (pod("Failed", ended(0, "Completed"), beside=ended(143)), PodState.SUCCEEDED, None),
        (pod("Succeeded", ended(0, "Completed"), deleted=True), PodState.SUCCEEDED, None),
        (pod("Failed", ended(1)), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Failed", ended(64)), PodState.FAILED, FailureClass.CONFIGURATION),
        (pod("Failed", ended(143)), PodState.FAILED, FailureClass.INFRASTRUCTURE),
        (pod("Failed", ended(137)), PodState.FAILED, FailureClass.INFRASTRUCTURE),
        (pod("Failed", ended(137, "OOMKilled")), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Failed", ended(137), reason="Evicted"), PodState.FAILED, FailureClass.APPLICATION),
        (pod("Failed", ended(1), conditions=[condition("DisruptionTarget")]), PodState.FAILED, FailureClass.INFRASTRUCTURE),
        (pod("Failed", reason="Evicted", conditions=[condition("DisruptionTarget")]), PodState.FAILED, FailureClass.INFRASTRUCTURE),
        (pod("Failed", conditions=[condition("DisruptionTarget", "False")]), PodState.FAILED, FailureClass.INFRASTRUCTURE),
    ],
)
def test_a_pod_is_what_its_phase_its_container_and_its_conditions_say(
    raw: Json, state: PodState, failure: FailureClass | None
) -> None:
    found = pod_of(raw)
    assert found.state is state
    assert (classify(found) if state is PodState.FAILED else None) is failure


def test_times_gpus_and_result_are_those_of_the_stage_container() -> None:
    found = pod_of(pod("Succeeded", ended(0, "Completed", '{"stage": "train", "metrics": {"trainLoss": {"value": 0.5}}}'), index=3))
    assert (found.index, found.gpus, found.reason) == (3, 8, None)
    assert found.started_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.finished_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert found.result is not None
    assert found.result.stage is StageName.TRAIN


@pytest.mark.parametrize("message", ["", "no JSON", '{"stage": "dance"}', '{"stage": "train", "unknown": 1}', '{"stage": "tra'])
def test_last_words_that_are_no_result_are_none(message: str) -> None:
    assert pod_of(pod("Failed", ended(1, message=message))).result is None


def test_a_pod_whose_node_was_lost_ended_when_it_was_given_up() -> None:
    lost = pod("Failed", {"running": {"startedAt": TIME}}, conditions=[condition("DisruptionTarget")])
    assert pod_of(lost).finished_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert pod_of(pod("Running", {"running": {"startedAt": TIME}}, conditions=[condition("Ready", "False")])).finished_at is None


@pytest.mark.parametrize(
    ("spec", "conditions", "phase"),
    [
        ({}, [], JobPhase.ACTIVE),
        ({"suspend": True}, [condition("Suspended")], JobPhase.SUSPENDED),
        ({}, [condition("FailureTarget")], JobPhase.FAILURE_TARGET),
        ({}, [condition("FailureTarget"), condition("Failed")], JobPhase.FAILED),
        ({}, [condition("SuccessCriteriaMet")], JobPhase.ACTIVE),
        ({}, [condition("SuccessCriteriaMet"), condition("Complete")], JobPhase.COMPLETE),
        ({}, [condition("Failed", "False")], JobPhase.ACTIVE),
    ],
)
def test_a_job_s_phase_is_read_from_its_conditions(spec: Json, conditions: list[Json], phase: JobPhase) -> None:
    assert observed(job(spec=spec, status={"conditions": conditions})).phase is phase


def test_pods_of_a_former_job_of_that_name_are_not_its() -> None:
    former = pod()
    former["metadata"]["ownerReferences"] = [{"uid": "former", "controller": True}]
    forged = pod()
    forged["metadata"]["ownerReferences"] = [{"uid": "u"}]
    assert pods_of(job(), [former, forged, pod(index=1)]) == [pod(index=1)]


def test_ignored_pods_that_are_gone_are_counted_from_the_pod_after_them() -> None:
    counted = {"batch.kubernetes.io/job-index-ignored-failure-count": "3"}
    shards = job(spec={"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1})
    found = observed(shards, pod("Failed", ended(143), index=1), pod(index=1, annotations=counted), pod(index=0))
    assert ignored_pods(found) == 3
    assert [entry.index for entry in found.pods].count(1) == 4


def test_failures_whose_pods_were_let_go_are_counted_from_the_pod_after_them() -> None:
    """Else an index would never use up its budget."""
    counted = {"batch.kubernetes.io/job-index-failure-count": "2"}
    shards = job(spec={"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 2})
    found = observed(shards, pod(index=1, annotations=counted), pod(index=0))
    assert application_failures(found) == 2
    # Those that are still there count once.
    found = observed(shards, pod("Failed", ended(1), index=1), pod(index=1, annotations=counted), pod(index=0))
    assert application_failures(found) == 2


@pytest.mark.parametrize(("completed", "done"), [("", []), ("0", [0]), ("0,2-3", [0, 2, 3])])
def test_shards_that_ended_well_and_were_let_go_are_done_without_their_pods(completed: str, done: list[int]) -> None:
    status = {"completedIndexes": completed, "startTime": TIME}
    found = observed(job(spec={"completions": 5}, status=status), pod(index=1))
    assert [entry.index for entry in found.pods if entry.state is PodState.SUCCEEDED] == done
    assert found.completions == 5
    seen = observed(job(spec={"completions": 5}, status=status), pod("Succeeded", ended(0), index=0))
    assert [entry.index for entry in seen.pods].count(0) == 1


@pytest.mark.parametrize(
    ("raw", "beside"),
    [
        (pod("Running", ended(1), beside=RUNS), ("side-car",)),
        (pod("Running", RUNS, beside=RUNS), ()),
        (pod("Running", ended(1)), ()),
        (pod("Running", ended(1), beside=RUNS, deleted=True), ()),
        (pod("Failed", ended(1), beside=RUNS), ()),
        # A kubelet ends a native sidecar by itself.
        (pod("Running", ended(1), initContainerStatuses=[{"name": "istio-proxy", "state": RUNS}]), ()),
    ],
)
def test_a_pod_lingers_where_a_container_beside_the_stage_s_goes_on(raw: Json, beside: tuple[str, ...]) -> None:
    found = pod_of(raw)
    assert (found.beside, found.lingers) == (beside, bool(beside))
    assert pod_of(trimmed(Kind.POD, raw)) == found


def test_nodes_of_a_failed_gang_that_were_stopped_are_seen_with_what_they_held() -> None:
    gang = {"completionMode": "Indexed", "completions": 3, "parallelism": 3}
    failed = job(spec=gang, status={"conditions": [condition("Failed")]})
    found = observed(failed, pod("Failed", ended(1), index=1))
    assert [entry.index for entry in found.pods] == [1, 0, 2]
    assert all(
        entry == Pod(PodState.FAILED, entry.index, started_at=entry.started_at, finished_at=entry.finished_at, gpus=8)
        for entry in found.pods[1:]
    )
    assert {entry.started_at for entry in found.pods} == {datetime(2026, 1, 1, tzinfo=UTC)}
    assert observed(failed).pods == ()
    assert len(observed(job(spec=gang), pod(index=1)).pods) == 1
    assert len(observed(job(spec=gang | {"backoffLimitPerIndex": 0}, status=failed["status"]), pod(index=1)).pods) == 1


UNSCHEDULED = condition(
    "PodScheduled", "False", reason="Unschedulable", message="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
)
SCHEDULED = condition("PodScheduled")


@pytest.mark.parametrize(
    ("raw", "pods", "reason", "words"),
    [
        (job(spec={"suspend": True}), [], Reason.SUSPENDED, "set its spec.suspend to false"),
        (job(spec={"suspend": True}, labels={"kueue.x-k8s.io/queue-name": "gpus"}), [], Reason.WAITING_FOR_QUOTA, "queue gpus"),
        (job(), [pod("Pending", conditions=[UNSCHEDULED])], Reason.UNSCHEDULABLE, "3 Insufficient nvidia.com/gpu."),
        (
            job(),
            [pod("Pending", conditions=[condition("PodScheduled", "False", reason="SchedulingGated")])],
            Reason.WAITING_FOR_QUOTA,
            "scheduling gate",
        ),
        (
            job(),
            [pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "not found"}}, conditions=[SCHEDULED])],
            Reason.IMAGE_PULL_BACK_OFF,
            "Pod p-0 cannot get its image: not found",
        ),
        (
            job(),
            [pod("Pending", {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}})],
            Reason.CONFIGURATION_ERROR,
            'secret "s3" not found',
        ),
        (
            job(),
            [pod(), pod("Running", index=1, conditions=[condition("DisruptionTarget", message="default-scheduler: preempting")])],
            Reason.PREEMPTED,
            "Pod p-1 is being stopped: default-scheduler: preempting",
        ),
        (job(), [pod("Failed", ended(143), conditions=[condition("DisruptionTarget")])], None, ""),
        (job(status={"conditions": [condition("Failed")]}), [pod("Pending", conditions=[UNSCHEDULED])], None, ""),
        (job(status={"active": 1}), [pod()], None, ""),
    ],
)
def test_what_holds_a_job_back_is_told_by_whoever_does(raw: Json, pods: list[Json], reason: Reason | None, words: str) -> None:
    found = hindrance_of(raw, pods)
    assert (None if found is None else found.reason) is reason
    assert words in (found.message if found is not None else "")


def told(reason: str, message: str, time: str) -> Json:
    return {"reason": reason, "message": message, "lastTimestamp": time}


def test_events_speak_where_pods_are_missing_until_one_comes() -> None:
    lacking, refused = job(status={"active": 0}), told("FailedCreate", 'forbidden: exceeded quota: "gpus"', TIME)
    assert needs_events(lacking, [])
    found = hindrance_of(lacking, [], [refused, told("FailedCreate", "older", "2025-01-01T00:00:00Z")])
    assert found is not None
    assert (found.reason, found.message) == (Reason.QUOTA_EXCEEDED, 'forbidden: exceeded quota: "gpus"')
    assert hindrance_of(lacking, [], [refused, told("SuccessfulCreate", "Created pod: p", LATER)]) is None
    assert hindrance_of(job(status={"active": 1}), [pod()], [refused]) is None


def test_a_volume_that_cannot_be_mounted_is_told_by_the_pod_s_events() -> None:
    waiting = pod("Pending", {"waiting": {"reason": "ContainerCreating"}}, conditions=[SCHEDULED])
    raw = job(status={"active": 1})
    assert needs_events(raw, [waiting])
    found = hindrance_of(raw, [waiting], [told("FailedMount", 'configmap "authorities" not found', TIME)])
    assert found is not None
    assert (found.reason, found.message) == (Reason.CONFIGURATION_ERROR, 'configmap "authorities" not found')


@pytest.mark.parametrize("labels", [{"rlhf.dev/attempt": "nonsense"}, {"rlhf.dev/attempt": "3"}, {"rlhf.dev/stage": "dance"}])
def test_a_job_is_of_the_attempt_that_its_name_says_whatever_became_of_its_labels(labels: Json) -> None:
    found = observed(job(labels=labels))
    assert found.key == (1, StageName.TRAIN, 2)
    bare = job()
    del bare["metadata"]["labels"]
    assert observed(bare).key == (1, StageName.TRAIN, 2)


@pytest.mark.parametrize("run", ["tiny", "i3-train-4", "a" * 63])
@pytest.mark.parametrize("attempt", [(None, StageName.PREFLIGHT, 1), (50, StageName.REFERENCE, 123456)])
def test_a_name_says_of_which_attempt_it_is(run: str, attempt: tuple[int | None, StageName, int]) -> None:
    assert attempt_of(child_name(run, *attempt)) == attempt


def test_a_job_that_somebody_else_gave_to_the_run_is_none_of_its_own() -> None:
    run = run_of()
    owned = job()
    owned["metadata"]["ownerReferences"] = [{"uid": run.metadata.uid, "controller": True}]
    foreign = {**owned, "metadata": owned["metadata"] | {"name": "by-hand"}}
    assert own_jobs(run, [owned, foreign]) == [owned]


def owned_job(name: str = "tiny-i1-train-2") -> Json:
    found = job()
    owner = [{"uid": run_of().metadata.uid, "controller": True}]
    return {**found, "metadata": found["metadata"] | {"name": name, "ownerReferences": owner}}


@pytest.mark.parametrize("name", ["tiny-i0-prepare-1", "tiny-i12-warm-up2-3", "a-i1-train-x-i1-prepare-1"])
def test_a_job_of_a_stage_that_is_none_here_is_another_version_s(name: str) -> None:
    [found] = unknown_in(run_of(), [owned_job(name)], [])
    assert str(found).startswith(f"the stage of Job {name} is '")
    assert found.word


@pytest.mark.parametrize("name", ["tiny-i1-train-2", "tiny-i0-preflight-1", "by-hand", "tiny-i1-2", "tiny-prepare-1"])
def test_a_known_job_and_one_by_hand_are_not(name: str) -> None:
    assert list(unknown_in(run_of(), [owned_job(name)], [])) == []


def test_a_job_of_a_former_run_of_that_name_is_not() -> None:
    found = owned_job("tiny-i0-prepare-1")
    found["metadata"]["ownerReferences"] = [{"uid": "another", "controller": True}]
    assert list(unknown_in(run_of(), [found], [])) == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('{"stage": "train", "warmth": 3}', ["the result of pod p has a field 'warmth'"]),
        ('{"stage": "prepare"}', ["stage of the result of pod p is 'prepare'"]),
        ('{"stage": "train"}', []),
        ("Traceback (most recent call last)", []),
        ('{"warmth": 3}', []),
        ("", []),
    ],
)
def test_a_result_in_words_that_are_none_here_is_another_version_s(message: str, words: list[str]) -> None:
    owned = owned_job()
    ended = pod("Succeeded", {"terminated": {"exitCode": 0, "message": message}})
    ended["metadata"] |= {"name": "p", "ownerReferences": [{"uid": owned["metadata"]["uid"], "controller": True}]}
    assert [str(found) for found in unknown_in(run_of(), [owned], [ended])] == words
