"""What a stage's pods and its queue are made of."""

from __future__ import annotations

from typing import Any

from rlhf_api.resource.compute import Pod
from rlhf_api.words import StageName
from rlhf_operator.core.jobs.execution import queue_of
from rlhf_operator.core.jobs.pods import merge_pods, pod_of
from support.runs import spec_of


def pod(**fields: Any) -> Pod:
    return Pod.model_validate(fields)


def test_pod_defaults_are_merged_under_the_stages_own() -> None:
    defaults = pod(
        resources={"limits": {"cpu": 4, "memory": "8Gi"}},
        nodeSelector={"zone": "a", "disk": "ssd"},
        tolerations=[{"key": "gpu"}],
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
        priorityClassName="low",
        shmSize="1Gi",
    )
    own = pod(
        resources={"limits": {"cpu": 8, "nvidia.com/gpu": 1}},
        nodeSelector={"zone": "b"},
        tolerations=[{"key": "spot"}],
        env=[{"name": "B", "value": "2"}],
        priorityClassName="high",
    )
    assert merge_pods(defaults, own) == pod(
        resources={"limits": {"cpu": 8, "memory": "8Gi", "nvidia.com/gpu": 1}},
        nodeSelector={"zone": "b", "disk": "ssd"},
        tolerations=[{"key": "gpu"}, {"key": "spot"}],
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
        priorityClassName="high",
        shmSize="1Gi",
    )


def test_cpu_stages_ask_for_no_device_and_go_to_the_cpu_queue() -> None:
    defaults = {"resources": {"limits": {"nvidia.com/gpu": 8, "cpu": 4}}}
    spec = spec_of(podDefaults=defaults, queue={"name": "gpu", "cpuName": "cpu", "priorityClass": "low"})
    for stage in (StageName.PREFLIGHT, StageName.RESOLVE, StageName.FINALIZE):
        resources = pod_of(spec, stage).resources
        queue = queue_of(spec, stage)
        assert resources is not None
        assert resources.limits == {"cpu": 4}
        assert queue is not None
        assert (queue.name, queue.priority_class) == ("cpu", "low")
    assert queue_of(spec_of(queue={"name": "gpu"}), StageName.PREFLIGHT) is None


def test_a_stages_own_queue_goes_before_the_runs() -> None:
    spec = spec_of(queue={"name": "gpu", "priorityClass": "low"}, sample={"queue": {"name": "sampling"}})
    queue = queue_of(spec, StageName.SAMPLE)
    assert queue is not None
    assert (queue.name, queue.priority_class) == ("sampling", "low")
