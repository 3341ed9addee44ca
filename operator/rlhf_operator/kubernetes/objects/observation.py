"""A Job and its Pods as the core sees them. Pure, and the only reader of their JSON beside hindrance.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from pydantic import ValidationError

from rlhf_api.conventions.quantity import parse_quantity
from rlhf_api.reading.unknown import Mismatch, mismatches_of
from rlhf_api.resource.run import RLHFRun
from rlhf_api.stage import StageResult
from rlhf_api.validation.rules.pods import GPU
from rlhf_api.words import StageExit
from rlhf_operator.core.attempts.outcome import is_ignored
from rlhf_operator.core.jobs.names import attempt_of, unknown_stage_of
from rlhf_operator.core.observed import Hindrance, Job, JobPhase, Pod, PodState
from rlhf_operator.kubernetes.api.resources import Json
from rlhf_operator.kubernetes.objects.manifests.metadata import is_owned_by

from .labels import (
    APPLICATION_BASE,
    COMPLETION_INDEX,
    IGNORED_FAILURES,
    INDEX_FAILURES,
    INFRASTRUCTURE_BASE,
    RESOLVING,
    STAGE_CONTAINER,
)

#: Reasons of a container's end that say no more than its exit code.
_EMPTY_REASONS = frozenset({"Completed", "Error"})


def own_jobs(run: RLHFRun, jobs: Iterable[Json]) -> list[Json]:
    """Those of its attempts; what else somebody made it the owner of is none of our business."""
    return [job for job in jobs if is_owned_by(job, run) and attempt_of(job["metadata"]["name"]) is not None]


def unknown_in(run: RLHFRun, jobs: Iterable[Json], pods: Iterable[Json]) -> Iterator[Mismatch]:
    """What another version's Jobs and stages say and this one does not know: were it passed over, the attempt would be taken for
    absent, or for one that ended without a word.
    """
    own = [job for job in jobs if is_owned_by(job, run)]
    for job in own:
        name = job["metadata"]["name"]
        if (stage := unknown_stage_of(name)) is not None:
            yield Mismatch(f"the stage of Job {name}", f"is {stage!r}", word=True)
    uids = {job["metadata"]["uid"] for job in own}
    for pod in pods:
        message = _last_word(pod)
        if message and any(_controls(owner, uid) for owner in pod["metadata"].get("ownerReferences", ()) for uid in uids):
            yield from mismatches_of(StageResult, message, f"the result of pod {pod['metadata']['name']}")


def pods_of(job: Json, pods: Iterable[Json]) -> list[Json]:
    """Of this very Job, not of a former one with its name."""
    uid = job["metadata"]["uid"]
    return [pod for pod in pods if any(_controls(owner, uid) for owner in pod["metadata"].get("ownerReferences", ()))]


def _controls(owner: Json, uid: str) -> bool:
    """Anybody's pod may name an owner; one that a Job controls is one that its controller made."""
    return owner["uid"] == uid and owner.get("controller") is True


def job_of(job: Json, pods: Iterable[Json], hindrance: Hindrance | None) -> Job:
    pods = list(pods)
    seen = tuple(pod_of(pod) for pod in pods)
    seen = (*seen, *_done_shards(seen, job))
    metadata = job["metadata"]
    annotations = metadata.get("annotations", {})
    # Labels are anybody's to change; were one misread, the attempt would be taken for absent and its stage be started again.
    attempt = attempt_of(metadata["name"])
    if attempt is None:
        raise ValueError(f"{metadata['name']} is not the Job of an attempt")
    return Job(
        name=metadata["name"],
        uid=metadata["uid"],
        iteration=attempt[0],
        stage=attempt[1],
        attempt=attempt[2],
        phase=phase_of(job),
        created_at=_required_time(metadata["creationTimestamp"]),
        resolving=annotations.get(RESOLVING) == "true",
        deleting="deletionTimestamp" in metadata,
        admitted_at=_time(job.get("status", {}).get("startTime")),
        pods=(*seen, *_replaced_shards(seen, pods), *_stopped_nodes(seen, job)),
        infrastructure_base=int(annotations.get(INFRASTRUCTURE_BASE, 0)),
        application_base=int(annotations.get(APPLICATION_BASE, 0)),
        hindrance=hindrance,
        completions=int(job["spec"].get("completions", 1)),
    )


def phase_of(job: Json) -> JobPhase:
    conditions = {entry["type"] for entry in job.get("status", {}).get("conditions", ()) if entry["status"] == "True"}
    for phase in (JobPhase.COMPLETE, JobPhase.FAILED, JobPhase.FAILURE_TARGET):
        if phase.value in conditions:
            return phase
    return JobPhase.SUSPENDED if job["spec"].get("suspend") else JobPhase.ACTIVE


def pod_of(pod: Json) -> Pod:
    status = pod.get("status", {})
    state = stage_container(pod).get("state", {})
    running, terminated = state.get("running", {}), state.get("terminated", {})
    return Pod(
        state=_pod_state(pod),
        index=_index(pod),
        exit_code=terminated.get("exitCode"),
        reason=_reason(status, terminated),
        disrupted=condition(pod, "DisruptionTarget") is not None,
        created_at=_time(pod["metadata"]["creationTimestamp"]),
        started_at=_time(running.get("startedAt") or terminated.get("startedAt")),
        finished_at=_time(terminated.get("finishedAt")) or _ended_at(pod),
        gpus=_gpus(pod),
        result=_result(_last_word(pod)),
        name=pod["metadata"].get("name", ""),
        uid=pod["metadata"].get("uid", ""),
        beside=tuple(_beside(pod)),
    )


def stage_container(pod: Json) -> Json:
    """Its status; empty before the kubelet has told any."""
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return next((status for status in statuses if status["name"] == STAGE_CONTAINER), {})


def condition(pod: Json, kind: str, status: str = "True") -> Json | None:
    conditions = pod.get("status", {}).get("conditions", ())
    return next((entry for entry in conditions if entry["type"] == kind and entry["status"] == status), None)


def _pod_state(pod: Json) -> PodState:
    """What the stage's container came to counts, whatever became of others of the pod."""
    phase = pod.get("status", {}).get("phase", PodState.PENDING)
    code = stage_container(pod).get("state", {}).get("terminated", {}).get("exitCode")
    if phase in (PodState.SUCCEEDED, PodState.FAILED):
        return PodState.SUCCEEDED if code == StageExit.DONE else PodState(phase)
    if "deletionTimestamp" in pod["metadata"]:
        return PodState.TERMINATING
    if code == StageExit.DONE:
        # A kubelet says so a second before it gives the pod its phase.
        return PodState.SUCCEEDED
    if any(_beside(pod)):
        return PodState.FAILED
    return PodState.PENDING if phase == PodState.PENDING else PodState.RUNNING


def _beside(pod: Json) -> Iterator[str]:
    """Containers that go on, or are yet to start, after the stage's has ended: a service mesh's, for instance. A native sidecar is
    an init container, and the kubelet itself ends it.
    """
    status = pod.get("status", {})
    if "terminated" not in stage_container(pod).get("state", {}) or "deletionTimestamp" in pod["metadata"]:
        return
    if status.get("phase") not in (PodState.SUCCEEDED, PodState.FAILED):
        yield from (found["name"] for found in status["containerStatuses"] if "terminated" not in found.get("state", {}))


def _done_shards(seen: Iterable[Pod], job: Json) -> Iterator[Pod]:
    """Those that ended well and whose pods are gone: they were let go while others worked, and what they held is booked. Of their
    times no more is known than that they were of this Job.
    """
    status = job.get("status", {})
    since = _time(status.get("startTime"))
    there = {pod.index for pod in seen}
    for part in filter(None, status.get("completedIndexes", "").split(",")):
        first, _, last = part.partition("-")
        for index in range(int(first), int(last or first) + 1):
            if index not in there:
                yield Pod(PodState.SUCCEEDED, index, 0, started_at=since, finished_at=since)


def _replaced_shards(seen: Iterable[Pod], raw: Iterable[Json]) -> Iterator[Pod]:
    """A shard's pod that was preempted, drained or let go is removed with its record; the Job controller counts it on the pod after
    it. Of how one ended that it counts against the index no more is known: it is taken for an application error, as the Job does.
    """
    for annotation, ignored in ((IGNORED_FAILURES, True), (INDEX_FAILURES, False)):
        counted: dict[int, int] = {}
        for pod in raw:
            count = int(pod["metadata"].get("annotations", {}).get(annotation, 0))
            counted[_index(pod)] = max(counted.get(_index(pod), 0), count)
        for index, count in counted.items():
            left = sum(pod.index == index and pod.state is PodState.FAILED and is_ignored(pod) is ignored for pod in seen)
            for _ in range(count - left):
                yield Pod(PodState.FAILED, index, disrupted=True) if ignored else Pod(PodState.FAILED, index, StageExit.APPLICATION)


def _stopped_nodes(seen: Sequence[Pod], job: Json) -> Iterator[Pod]:
    """When a gang fails, the Job controller deletes the pods of the nodes that still run: they leave neither word nor exit code.

    They held their GPUs as long as the node that failed first did, or longer.
    """
    spec = job["spec"]
    if phase_of(job) is not JobPhase.FAILED or spec.get("completionMode") != "Indexed" or "backoffLimitPerIndex" in spec:
        return
    for index in sorted(set(range(spec["completions"])) - {pod.index for pod in seen}):
        for peer in seen[:1]:
            yield Pod(PodState.FAILED, index, started_at=peer.started_at, finished_at=_failed_at(job), gpus=peer.gpus)


def _failed_at(job: Json) -> datetime | None:
    conditions = job.get("status", {}).get("conditions", ())
    return next((_time(entry["lastTransitionTime"]) for entry in conditions if entry["type"] == JobPhase.FAILED.value), None)


def _index(pod: Json) -> int:
    return int(pod["metadata"].get("annotations", {}).get(COMPLETION_INDEX, 0))


def _reason(status: Json, terminated: Json) -> str | None:
    for reason in (status.get("reason"), terminated.get("reason")):
        if reason and reason not in _EMPTY_REASONS:
            return str(reason)
    return None


def _ended_at(pod: Json) -> datetime | None:
    """Of a pod whose kubelet did not live to tell of its container: when it was given up."""
    if _pod_state(pod) is not PodState.FAILED:
        return None
    disruption = condition(pod, "DisruptionTarget") or condition(pod, "Ready", "False") or {}
    return _time(disruption.get("lastTransitionTime"))


def _gpus(pod: Json) -> int:
    for container in pod["spec"].get("containers", ()):
        if container["name"] == STAGE_CONTAINER:
            return int(parse_quantity(container.get("resources", {}).get("limits", {}).get(GPU, 0)))
    return 0


def _last_word(pod: Json) -> str | None:
    message: str | None = stage_container(pod).get("state", {}).get("terminated", {}).get("message")
    return message


def _result(message: str | None) -> StageResult | None:
    if not message:
        return None
    try:
        return StageResult.model_validate_json(message)
    except ValidationError:
        return None


def _time(text: str | None) -> datetime | None:
    return None if text is None else _required_time(text)


def _required_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
