"""Why a Job does not get on, in the words of whoever holds it back: scheduler, kubelet, quota, admission, queue. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rlhf_api.words import Reason
from rlhf_operator.core.observed import Hindrance, JobPhase
from rlhf_operator.kubernetes.api.errors import exceeds_quota
from rlhf_operator.kubernetes.api.resources import Json

from .observation import condition, phase_of, stage_container

_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_CONTAINER_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError"})
#: Events by which the Job controller tells that it cannot make a pod, and the kubelet that it cannot mount a volume.
_TELLING = frozenset({"FailedCreate", "FailedMount", "FailedAttachVolume"})
_CREATED = "SuccessfulCreate"


def hindrance_of(job: Json, pods: Iterable[Json], events: Iterable[Json] = ()) -> Hindrance | None:
    """`events`: of the Job and of its pods that wait without a word; needed only where `needs_events`."""
    phase = phase_of(job)
    if phase is JobPhase.SUSPENDED:
        return _suspended(job)
    if phase is not JobPhase.ACTIVE:
        return None
    found = [hindrance for pod in pods if (hindrance := _of_pod(pod)) is not None]
    if found:
        return found[0]
    return _told(events) if needs_events(job, pods) else None


def needs_events(job: Json, pods: Iterable[Json]) -> bool:
    """The Job lacks pods that it should have, or a pod waits and its status does not say for what."""
    if phase_of(job) is not JobPhase.ACTIVE or "deletionTimestamp" in job["metadata"]:
        return False
    status = job.get("status", {})
    wanted = min(job["spec"].get("parallelism", 1), job["spec"].get("completions", 1) - status.get("succeeded", 0))
    return status.get("active", 0) < wanted or bool(silent_pods(pods))


def silent_pods(pods: Iterable[Json]) -> list[Json]:
    """They have a node and do not start: for an image that is on its way, or a volume that never comes."""
    return [pod for pod in pods if _waits_silently(pod)]


def _of_pod(pod: Json) -> Hindrance | None:
    name = pod["metadata"]["name"]
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return None
    if (disrupted := condition(pod, "DisruptionTarget")) is not None:
        return Hindrance(Reason.PREEMPTED, f"Pod {name} is being stopped: {_said(disrupted)}")
    if (unscheduled := condition(pod, "PodScheduled", "False")) is not None:
        if unscheduled.get("reason") == "SchedulingGated":
            return Hindrance(Reason.WAITING_FOR_QUOTA, f"Pod {name} is held back by a scheduling gate.")
        return Hindrance(Reason.UNSCHEDULABLE, f"Pod {name} finds no node: {_said(unscheduled)}")
    waiting = stage_container(pod).get("state", {}).get("waiting", {})
    reason = waiting.get("reason")
    if reason in _IMAGE_REASONS:
        return Hindrance(Reason.IMAGE_PULL_BACK_OFF, f"Pod {name} cannot get its image: {_said(waiting)}")
    if reason in _CONTAINER_REASONS:
        return Hindrance(Reason.CONFIGURATION_ERROR, f"Pod {name} cannot start its container: {_said(waiting)}")
    return None


def _waits_silently(pod: Json) -> bool:
    if pod.get("status", {}).get("phase") != "Pending" or "deletionTimestamp" in pod["metadata"]:
        return False
    return condition(pod, "PodScheduled") is not None and _of_pod(pod) is None


def _suspended(job: Json) -> Hindrance:
    queue = job["metadata"].get("labels", {}).get(_QUEUE_LABEL)
    if queue is None:
        return Hindrance(Reason.SUSPENDED, f"Job {job['metadata']['name']} is suspended; set its spec.suspend to false to go on.")
    return Hindrance(Reason.WAITING_FOR_QUOTA, f"Job {job['metadata']['name']} waits in Kueue's queue {queue} for quota.")


def _told(events: Iterable[Json]) -> Hindrance | None:
    """The newest word counts: a pod that could be made after all takes back what was said before."""
    telling = [event for event in events if event.get("reason") in _TELLING | {_CREATED}]
    newest = max(telling, key=lambda event: (_when(event), event["reason"] != _CREATED), default=None)
    if newest is None or newest["reason"] == _CREATED:
        return None
    message = newest.get("message", "")
    reason = Reason.QUOTA_EXCEEDED if exceeds_quota(message) else Reason.CONFIGURATION_ERROR
    return Hindrance(reason, message)


def _when(event: Json) -> str:
    series = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or ""


def _said(entry: Json) -> str:
    return str(entry.get("message") or entry.get("reason") or "no reason was given")
