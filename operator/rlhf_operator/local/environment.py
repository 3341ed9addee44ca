"""The environment of a stage's process, as a pod has it in a cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from rlhf_operator.core.actions import CreateJob, Topology

from .launcher import MARKER


def stage_environment(
    base: Mapping[str, str], action: CreateJob, *, index: int, pod: str, threads: int, port: int
) -> dict[str, str]:
    """Ours, the manifest's pod.env, and what the stage contract says. `port`: of the rendezvous of a gang."""
    own = {variable.name: variable.value for variable in action.pod.env or []}
    environment = {**base, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **own}
    environment |= {"JOB_COMPLETION_INDEX": str(index), MARKER: pod}
    if action.shape.topology is Topology.GANG:
        environment |= {
            "PET_NNODES": str(action.shape.completions),
            "PET_NPROC_PER_NODE": str(action.config.execution.processes_per_node),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
    return environment


def free_port() -> int:
    """Free now; the kernel gives it to nobody else for a while."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
