"""The environment of a stage's process, as a pod has it in a cluster."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from rlhf_operator.core.actions import CreateJob

from .launcher import MARKER

#: What the stage contract says of one process; the rest is the same for all that the manifest does not tell apart.
_OF_ONE_PROCESS = frozenset(
    {"JOB_COMPLETION_INDEX", MARKER, "OMP_NUM_THREADS", "RLHF_RESULT", "RLHF_SCRATCH", "RLHF_PROGRESS"}
    | {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
)


def stage_environment(
    base: Mapping[str, str], action: CreateJob, *, index: int, pod: str, threads: int, port: int | None
) -> dict[str, str]:
    """Ours, the manifest's pod.env, and what the stage contract says. `port`: of the rendezvous of a gang."""
    # What comes from a Secret in a cluster is in the base already: the rule for local runs refuses one without it.
    own = {variable.name: variable.value for variable in action.pod.env or [] if variable.value is not None}
    environment = {**base, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", **own}
    environment |= {"JOB_COMPLETION_INDEX": str(index), MARKER: pod}
    if port is not None:
        environment |= {
            "PET_NNODES": str(action.shape.completions),
            "PET_NPROC_PER_NODE": str(action.config.execution.processes_per_node),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(port),
        }
    return environment


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what the stage contract says of one process: where this is equal, libraries find the same when they are imported."""
    return {name: value for name, value in environment.items() if name not in _OF_ONE_PROCESS}


class ReservedPort:
    """A port of the loopback interface for one rendezvous: until it is closed, the kernel gives it to nobody who asks for any port.

    It is bound and does not listen, so that torch's store, which sets SO_REUSEADDR as we do, can bind it all the same.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()
