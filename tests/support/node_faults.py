"""What happens to pods of a run on a real node, and where in their work they are when it does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import KubectlError
from rlhf_operator.kubernetes.objects.labels import COMPLETION_INDEX, ITERATION_LABEL
from support.node_installation import RunOnNode
from support.waiting import wait_until

Json = dict[str, Any]
#: Until the next word of a run: a stage takes half a minute where nothing else runs.
PATIENCE_SECONDS = 1800.0
#: What a trainer says when it has done a step, when a checkpoint is whole, and (as a pattern) when it goes on from one.
TRAINING, CHECKPOINT = " steps, loss ", " steps are in a checkpoint"
RESUMED = r"a checkpoint holds (\d+) of \d+ steps: going on"
#: A stage's process, and a rank of a training.
STAGE, RANK = "-m rlhf_trainer ", "-m rlhf_trainer.training.worker"


def at_work(run: RunOnNode, stage: str, *, iteration: int = 0, index: int = 0, saying: str = "") -> Json:
    """The pod of this index in the midst of its work; with `saying`, once its log has a line with that in it."""

    def found() -> Json | None:
        for pod in pods_of(run, stage, iteration, index):
            if is_running(pod) and (not saying or saying in _log(run, pod)):
                return pod
        there = run.stages.get(f"{stage}-{iteration}")
        over = run.phase.finished or (there is not None and there.phase.finished)
        assert not over, f"{stage} {iteration} ended before it was seen at work: {run.status.message}"
        return None

    pod = wait_until(
        found, f"a pod of {stage} {iteration} with index {index} at work {saying}", seconds=PATIENCE_SECONDS, every=0.3
    )
    assert pod is not None
    return pod


def pods_of(run: RunOnNode, stage: str, iteration: int, index: int) -> list[Json]:
    """But not of what looks an artifact up for the stage."""
    wanted = (stage, str(iteration), index)
    return [pod for pod in run.run.pods() if (component(pod), pod["metadata"]["labels"][ITERATION_LABEL], index_of(pod)) == wanted]


def component(pod: Json) -> str:
    """Its stage; `resolve` of what looks an artifact up for one."""
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def name_of(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def index_of(pod: Json) -> int:
    return int(pod["metadata"]["annotations"].get(COMPLETION_INDEX, "0"))


def is_running(pod: Json) -> bool:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return "running" in statuses[0].get("state", {}) and "deletionTimestamp" not in pod["metadata"]


def delete_pod(run: RunOnNode, pod: Json) -> None:
    """As a drained node does it: SIGTERM, and time to end."""
    run.installation.cluster.api.delete(_path(pod))


def evict(run: RunOnNode, pod: Json) -> None:
    """By the Eviction API, as `kubectl drain` and autoscalers do it."""
    metadata = {"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    run.installation.cluster.api.post(f"{_path(pod)}/eviction", eviction)


def signal_process(pod: Json, number: signal.Signals, program: str) -> None:
    """To the process of the pod that runs `program`, from outside: the kernel's out-of-memory killer does it no other way."""
    processes = [pid for pid in _processes(pod) if program in _command(pid) and "training.agent" not in _command(pid)]
    assert processes, f"no process of pod {pod['metadata']['name']} runs {program}"
    os.kill(min(processes), number)


def delete_job(run: RunOnNode, pod: Json) -> None:
    """The pod's own, by hand."""
    name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
    namespace = pod["metadata"]["namespace"]
    run.installation.cluster.api.delete(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}", propagationPolicy="Background")


@contextmanager
def cordoned(run: RunOnNode) -> Iterator[None]:
    """No new pod gets onto the node meanwhile."""
    cluster = run.installation.cluster
    cluster.kubectl("cordon", cluster.node_name)
    try:
        yield
    finally:
        cluster.kubectl("uncordon", cluster.node_name)


def _log(run: RunOnNode, pod: Json) -> str:
    metadata = pod["metadata"]
    try:
        return run.installation.cluster.kubectl("-n", metadata["namespace"], "logs", metadata["name"])
    except KubectlError:
        return ""  # It has gone meanwhile, or its node is not asked just now.


def _processes(pod: Json) -> list[int]:
    """By its uid, which is in the name of its cgroup."""
    uid, found = pod["metadata"]["uid"], []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"pod{uid}" in (folder / "cgroup").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # It has ended meanwhile.
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
