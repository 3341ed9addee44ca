"""How much of the machine an attempt takes: processes at a time, threads, GPUs."""

from __future__ import annotations

from rlhf_api.conventions.quantity import parse_quantity
from rlhf_api.validation.rules.pods import gpu_limit
from rlhf_operator.core.actions import CreateJob, Topology

from .machine import Machine

#: Of a shard whose pod declares nothing: one engine with a small model.
_SHARD_MEMORY = 4 * 2**30


def at_a_time(action: CreateJob, machine: Machine) -> int:
    """Shards: as the manifest allows, and as cores and memory allow; at least one. The nodes of a gang: all."""
    shape = action.shape
    if shape.topology is not Topology.SHARDED:
        return shape.completions
    cores = max(1.0, _declared(action, "cpu") or 1.0)
    memory = _declared(action, "memory") or _SHARD_MEMORY
    return max(1, min(shape.parallelism, int(machine.cores // cores), int(machine.memory() // memory)))


def threads(action: CreateJob, machine: Machine, together: int) -> int:
    """Cores by process that computes: the ranks of a training stage, or `together` shards."""
    return max(1, machine.cores // (action.config.execution.processes_per_node * together))


def gpus(action: CreateJob, machine: Machine) -> int:
    """Of one pod; 0 with --cpu and where the machine has none."""
    if action.config.execution.allow_cpu or machine.gpus == 0:
        return 0
    resources = action.pod.resources
    if resources is None:
        return 0
    return gpu_limit(resources.limits) or 0


def _declared(action: CreateJob, resource: str) -> float | None:
    resources = action.pod.resources
    if resources is None:
        return None
    amount = resources.requests.get(resource, resources.limits.get(resource))
    return None if amount is None else float(parse_quantity(amount))
