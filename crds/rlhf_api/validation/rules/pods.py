"""Rules of pods: what belongs to us, to Kubernetes or to the loader is not for manifests."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from rlhf_api.conventions.quantity import parse_quantity
from rlhf_api.reading.manifest import Loc
from rlhf_api.resource.compute import RESERVED_ENV_PREFIXES, Pod
from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.problem import Problem, Problems
from rlhf_api.validation.walk import SPEC, pods

#: Labels and annotations that the operator, Kubernetes or Kueue write; the last by which a pod would get out of what Pod
#: Security holds it to.
RESERVED_KEY_PREFIXES = (
    "rlhf.dev/",
    "app.kubernetes.io/",
    "batch.kubernetes.io/",
    "kueue.x-k8s.io/",
    "container.apparmor.security.beta.kubernetes.io/",
)
RESERVED_KEYS = ("job-name", "controller-uid")
#: Where the operator mounts its own volumes, and what the container runtime does.
RESERVED_MOUNTS = ("/etc/rlhf", "/dev/shm", "/proc", "/sys")  # noqa: S108
#: Names of its volumes.
RESERVED_VOLUME_PREFIX = "rlhf-"
GPU = "nvidia.com/gpu"
_DEFAULTS: Loc = (*SPEC, "podDefaults")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")


def environment_is_free(spec: RLHFRunSpec) -> Problems:
    for loc, pod in pods(spec):
        for index, variable in enumerate(pod.env or ()):
            prefix = next((prefix for prefix in RESERVED_ENV_PREFIXES if variable.name.startswith(prefix)), None)
            if prefix is not None:
                right = "give S3 credentials in storage.credentials" if prefix == "AWS_" else "remove it, or give it another name"
                yield Problem((*loc, "env", index, "name"), f"{prefix}… is reserved", right)


def labels_are_free(spec: RLHFRunSpec) -> Problems:
    for loc, pod in pods(spec):
        for field, labels in (("labels", pod.labels), ("annotations", pod.annotations), ("nodeSelector", pod.node_selector)):
            for key, value in (labels or {}).items():
                place = (*loc, field, key)
                if not _KEY.match(key):
                    yield Problem(place, "the key has the wrong form", "write name or domain/name: letters, digits, -, _ and .")
                elif field != "nodeSelector" and (key in RESERVED_KEYS or key.startswith(RESERVED_KEY_PREFIXES)):
                    yield Problem(place, "the key is reserved", "use a domain of your own before the slash")
                if field != "annotations" and not _LABEL_VALUE.match(value):
                    yield Problem(place, "not a label's value", "letters, digits, -, _ and ., a letter or digit at both ends")


def mounts_have_volumes(spec: RLHFRunSpec) -> Problems:
    """A stage's pod is merged over podDefaults, so a mount may name a volume of either."""
    shared = {volume.name for volume in spec.pod_defaults.volumes or ()}
    for loc, pod in pods(spec):
        own = {volume.name for volume in pod.volumes or ()}
        for index, mount in enumerate(pod.volume_mounts or ()):
            place: Loc = (*loc, "volumeMounts", index)
            if mount.name not in own | shared:
                known = ", ".join(sorted(own | shared))
                right = f"there are {known}" if known else "add it to volumes, here or in podDefaults"
                depends: tuple[Loc, ...] = ((*loc, "volumes"), (*_DEFAULTS, "volumes"))
                depends += tuple((*loc, "volumes", each, "name") for each in range(len(own)))
                depends += tuple((*_DEFAULTS, "volumes", each, "name") for each in range(len(shared)))
                yield Problem((*place, "name"), "no volume has this name", right, depends=depends)
            if mount.mount_path != plain_path(mount.mount_path):
                yield Problem((*place, "mountPath"), "not a plain path", f"write {plain_path(mount.mount_path)}")
            elif any(_overlap(mount.mount_path, taken) for taken in RESERVED_MOUNTS):
                yield Problem((*place, "mountPath"), "something else is mounted here, or below it", "mount it elsewhere")
            if ".." in (mount.sub_path or "").split("/") or (mount.sub_path or "").startswith("/"):
                yield Problem((*place, "subPath"), "leads out of the volume", "write a path inside the volume, without ..")


def plain_path(path: str) -> str:
    """Without what leads nowhere: `/a//b/../c/` is /a/c."""
    return "/" + posixpath.normpath(path).lstrip("/")


def _overlap(path: str, taken: str) -> bool:
    return any(f"{inner}/".startswith(f"{outer.rstrip('/')}/") for inner, outer in ((path, taken), (taken, path)))


def volume_names_are_free(spec: RLHFRunSpec) -> Problems:
    for loc, pod in pods(spec):
        for index, volume in enumerate(pod.volumes or ()):
            if volume.name.startswith(RESERVED_VOLUME_PREFIX):
                yield Problem(
                    (*loc, "volumes", index, "name"), "the operator's own volumes have such names", "give it another name"
                )


def mount_paths_differ(spec: RLHFRunSpec) -> Problems:
    for loc, pod in pods(spec):
        seen: set[str] = set()
        for index, mount in enumerate(pod.volume_mounts or ()):
            if mount.mount_path in seen:
                yield Problem((*loc, "volumeMounts", index, "mountPath"), "another volume is mounted here", "mount it elsewhere")
            seen.add(mount.mount_path)


def requests_within_limits(spec: RLHFRunSpec) -> Problems:
    for loc, pod in pods(spec):
        if pod.resources is None:
            continue
        limits, requests = pod.resources.limits, pod.resources.requests
        for name, requested in requests.items():
            place: Loc = (*loc, "resources", "requests", name)
            limit = limits.get(name)
            if limit is None and name == GPU:
                yield Problem(place, "GPUs are given by limits", f"write {GPU} in limits")
            elif limit is not None and parse_quantity(requested) > parse_quantity(limit):
                yield Problem(
                    place, f"above the limit, {limit}", "request at most the limit", depends=((*loc, "resources", "limits", name),)
                )
        for field, resources in (("limits", limits), ("requests", requests)):
            count = resources.get(GPU)
            if count is not None and parse_quantity(count) % 1 != 0:
                yield Problem((*loc, "resources", field, GPU), "GPUs are whole", "write a whole number")


def ranks_have_gpus(spec: RLHFRunSpec) -> Problems:
    """Where a pod asks for GPUs, there is one for each rank or engine worker."""
    for name, wanted, field, pod in _gpu_users(spec):
        gpus, limit = _gpus_of(spec, name, pod)
        if gpus is not None and 0 < gpus < wanted:
            yield Problem(
                (*SPEC, *name, *field), f"more than the {gpus} GPUs of the pod", f"write at most {gpus}", depends=(limit,)
            )
    size = spec.sample.engine.tensor_parallel_size
    gpus, limit = _gpus_of(spec, ("evaluate",), spec.evaluate.pod)
    # Where both take the defaults, it has been said of sample.
    if gpus is not None and 0 < gpus < size and limit != _gpus_of(spec, ("sample",), spec.sample.pod)[1]:
        yield Problem(
            limit,
            f"evaluate samples with sample's engine, on {size} GPUs",
            f"write at least {size}",
            depends=((*SPEC, "sample", "engine", "tensorParallelSize"),),
        )


def _gpus_of(spec: RLHFRunSpec, name: Loc, pod: Pod | None) -> tuple[int | None, Loc]:
    """What the pod at this name gets, of its own or by podDefaults, and where that stands."""
    own = None if pod is None else _gpus(pod)
    place = _DEFAULTS if own is None else (*SPEC, *name, "pod")
    return _gpus(spec.pod_defaults) if own is None else own, (*place, "resources", "limits", GPU)


def _gpu_users(spec: RLHFRunSpec) -> list[tuple[Loc, int, Loc, Pod | None]]:
    """(where the pod hangs, GPUs it needs, the field that says so, the pod)."""
    users: list[tuple[Loc, int, Loc, Pod | None]] = [
        (("sample",), spec.sample.engine.tensor_parallel_size, ("engine", "tensorParallelSize"), spec.sample.pod),
        (("train", "compute"), spec.train.compute.processes_per_node, ("processesPerNode",), spec.train.compute.pod),
    ]
    if spec.sft is not None:
        users.append((("sft", "compute"), spec.sft.compute.processes_per_node, ("processesPerNode",), spec.sft.compute.pod))
    labelers: tuple[tuple[Loc, Labeler], ...] = ((("reward",), spec.reward), (("evaluate", "judge"), spec.evaluate.judge))
    for loc, labeler in labelers:
        if (training := labeler.training) is None:
            continue
        place: Loc = (*loc, labeler.trained_member, "train", "compute")
        users.append((place, training.compute.processes_per_node, ("processesPerNode",), training.compute.pod))
    return users


def gpu_limit(resources: Mapping[str, int | str]) -> int | None:
    """GPUs that a pod asks for; None where it says nothing."""
    count = resources.get(GPU)
    return None if count is None else int(parse_quantity(count))


def _gpus(pod: Pod) -> int | None:
    return None if pod.resources is None else gpu_limit(pod.resources.limits)
