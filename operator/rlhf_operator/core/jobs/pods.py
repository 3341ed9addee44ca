"""The pod of a stage: podDefaults under the stage's own."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.compute import Pod, Resources
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.words import StageName

from .execution import CPU_STAGES, compute_of


def pod_of(spec: RLHFRunSpec, stage: StageName) -> Pod:
    """What the manifest says of the stage's pods. CPU stages take podDefaults without its devices (such as nvidia.com/gpu)."""
    if stage in CPU_STAGES:
        return _without_devices(spec.pod_defaults)
    own = _own_pod(spec, stage)
    return spec.pod_defaults if own is None else merge_pods(spec.pod_defaults, own)


def merge_pods(defaults: Pod, own: Pod) -> Pod:
    """Maps by key, env and volumes by name, tolerations appended; the rest is replaced."""
    merged: dict[str, Any] = {}
    for name in Pod.model_fields:
        below, above = getattr(defaults, name), getattr(own, name)
        if below is None or above is None:
            merged[name] = below if above is None else above
        else:
            merged[name] = _merge(name, below, above)
    return Pod.model_validate({name: value for name, value in merged.items() if value is not None})


def _merge(name: str, below: Any, above: Any) -> Any:
    match name:
        case "resources":
            return Resources(limits={**below.limits, **above.limits}, requests={**below.requests, **above.requests})
        case "node_selector" | "labels" | "annotations":
            return {**below, **above}
        case "env" | "volumes":
            return list({entry.name: entry for entry in [*below, *above]}.values())
        case "volume_mounts":
            return list({entry.mount_path: entry for entry in [*below, *above]}.values())
        case "tolerations":
            return [*below, *above]
        case _:
            return above


def _own_pod(spec: RLHFRunSpec, stage: StageName) -> Pod | None:
    compute = compute_of(spec, stage)
    if compute is not None:
        return compute.pod
    match stage:
        case StageName.SAMPLE:
            return spec.sample.pod
        case StageName.LABEL:
            return spec.label.pod
        case StageName.REFERENCE:
            return spec.reference.pod
        case StageName.EVALUATE | StageName.BENCHMARK:
            return spec.evaluate.pod
        case _:
            return None


def _without_devices(pod: Pod) -> Pod:
    if pod.resources is None:
        return pod
    resources = Resources(
        limits={name: amount for name, amount in pod.resources.limits.items() if "/" not in name},
        requests={name: amount for name, amount in pod.resources.requests.items() if "/" not in name},
    )
    return pod.model_copy(update={"resources": resources})
