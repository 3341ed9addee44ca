"""What is kept of an object while it is watched: what `observation` reads. What is trimmed off cannot be observed."""

from __future__ import annotations

from rlhf_operator.kubernetes.api.resources import Json

from .keys import Kind
from .labels import READ_ANNOTATIONS

_OF_METADATA = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp")


def trimmed(kind: Kind, obj: Json) -> Json:
    """What an observation reads of it, and no version."""
    return _TRIMS[kind](obj)


def _trim_run(run: Json) -> Json:
    """Whole, but for what kubectl and the API server keep for themselves, its version, and annotations, which are its owner's."""
    return {**run, "metadata": _without(run["metadata"], "managedFields", "resourceVersion", "annotations")}


def _trim_job(job: Json) -> Json:
    metadata = _some(job["metadata"], *_OF_METADATA, "labels") | _annotations(job)
    spec = _some(job.get("spec", {}), "suspend", "completions", "parallelism", "completionMode", "backoffLimitPerIndex")
    status = _some(job.get("status", {}), "startTime", "active", "succeeded", "completedIndexes") | _conditions(job)
    return {"metadata": metadata | _owners(job), "spec": spec, "status": status}


def _trim_pod(pod: Json) -> Json:
    metadata = _some(pod["metadata"], *_OF_METADATA) | _annotations(pod)
    containers = [_some(container, "name", "resources") for container in pod["spec"].get("containers", ())]
    found = pod.get("status", {})
    states = [_some(status, "name", "state") for status in found.get("containerStatuses") or ()]
    status = _some(found, "phase", "reason") | _conditions(pod) | {"containerStatuses": states}
    return {"metadata": metadata | _owners(pod), "spec": {"containers": containers}, "status": status}


def _annotations(obj: Json) -> Json:
    """Anybody's may be 256 kB."""
    found = obj["metadata"].get("annotations")
    return {} if found is None else {"annotations": _some(found, *READ_ANNOTATIONS)}


def _owners(obj: Json) -> Json:
    return {"ownerReferences": [_some(owner, "uid", "controller") for owner in obj["metadata"].get("ownerReferences") or ()]}


def _conditions(obj: Json) -> Json:
    return {"conditions": [_without(entry, "lastProbeTime") for entry in obj.get("status", {}).get("conditions") or ()]}


def _some(obj: Json, *names: str) -> Json:
    return {name: obj[name] for name in names if name in obj}


def _without(obj: Json, *names: str) -> Json:
    return {name: value for name, value in obj.items() if name not in names}


_TRIMS = {Kind.RUN: _trim_run, Kind.JOB: _trim_job, Kind.POD: _trim_pod}
