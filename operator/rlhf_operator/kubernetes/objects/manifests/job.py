"""One attempt as a Job: what is retried inside it, and what ends it (docs/api.md, exit codes)."""

from __future__ import annotations

from rlhf_api.resource.compute import Queue
from rlhf_api.resource.run import RLHFRun
from rlhf_api.words import StageExit
from rlhf_operator.core.actions import CreateJob, Topology
from rlhf_operator.core.attempts.outcome import IGNORED_EXITS
from rlhf_operator.kubernetes.api.resources import Json
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.labels import (
    APPLICATION_BASE,
    FINGERPRINT,
    INFRASTRUCTURE_BASE,
    RESOLVING,
    STAGE_CONTAINER,
    attempt_labels,
)

from .metadata import child_metadata
from .pod import pod_spec

_QUEUE = "kueue.x-k8s.io/queue-name"
_PRIORITY = "kueue.x-k8s.io/priority-class"
#: A container's are from 0 to 255.
_NO_EXIT_CODE = 256


def job(run: RLHFRun, action: CreateJob, installation: Installation) -> Json:
    labels = attempt_labels(run, action.iteration, action.stage, action.attempt, action.config.stage)
    made_with = {
        FINGERPRINT: action.config.fingerprint,
        RESOLVING: str(action.resolving).lower(),
        INFRASTRUCTURE_BASE: str(action.infrastructure_base),
        APPLICATION_BASE: str(action.application_base),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": child_metadata(run, action.name, {**labels, **_queue_labels(action.queue)}, made_with),
        "spec": {
            **_pods_and_retries(action),
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules(action.shape.topology)},
            "template": {
                "metadata": {
                    "labels": {**(action.pod.labels or {}), **labels},
                    "annotations": {**(action.pod.annotations or {}), **made_with},
                },
                "spec": pod_spec(run, action, installation),
            },
        },
    }


def _pods_and_retries(action: CreateJob) -> Json:
    shape = action.shape
    if shape.topology is Topology.SINGLE:
        return {"completions": 1, "parallelism": 1, "backoffLimit": 0}
    indexed = {"completionMode": "Indexed", "completions": shape.completions, "parallelism": shape.parallelism}
    if shape.topology is Topology.GANG:
        return {**indexed, "backoffLimit": 0}
    return {**indexed, "backoffLimitPerIndex": shape.backoff_limit_per_index or 0, "maxFailedIndexes": 0}


def _failure_rules(topology: Topology) -> list[Json]:
    """In the order of `core.attempts.outcome.classify`. Only a shard is replaced: in a gang one death is everybody's.

    The last two tell a shard whose stage failed from one in which only a container beside it did (a sidecar that is told to end).
    """
    configuration = {"action": "FailJob", "onExitCodes": _exits(StageExit.CONFIGURATION)}
    if topology is not Topology.SHARDED:
        return [configuration]
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ignored = {"action": "Ignore", "onExitCodes": _exits(*IGNORED_EXITS)}
    counted = {"action": "Count", "onExitCodes": {**_exits(*IGNORED_EXITS, StageExit.CONFIGURATION), "operator": "NotIn"}}
    beside = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [_NO_EXIT_CODE]}}
    return [configuration, disrupted, ignored, counted, beside]


def _exits(*codes: StageExit) -> Json:
    return {"containerName": STAGE_CONTAINER, "operator": "In", "values": sorted(int(code) for code in codes)}


def _queue_labels(queue: Queue | None) -> dict[str, str]:
    """Kueue's own webhook suspends what carries its queue's name; whether it is suspended is never ours to say."""
    if queue is None or queue.name is None:
        return {}
    return {_QUEUE: queue.name} | ({_PRIORITY: queue.priority_class} if queue.priority_class else {})
