"""What one machine can do of a spec: a local run changes no number of ranks and leaves no GPU out by itself."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from rlhf_api.resource.compute import Compute
from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.validation.problem import Problem
from rlhf_api.validation.walk import all_of, pods

from .pods import GPU, gpu_limit


@dataclass(frozen=True)
class Machine:
    cores: int
    gpus: int = 0


def check_machine(spec: RLHFRunSpec, machine: Machine, *, cpu: bool = False) -> list[Problem]:
    """Problems of a local run on this machine; `cpu`: go without the GPUs that the spec asks for."""
    return [*_ranks(spec, machine), *([] if cpu else [*_gpus(spec, machine), *_gangs(spec, machine)])]


def check_environment(spec: RLHFRunSpec, names: Container[str]) -> list[Problem]:
    """Problems of a local run that is started with the variables `names`."""
    return [
        Problem(
            (*loc, "env", index),
            f"{variable.name} is to come from a Secret, which a local run cannot read, and is not set here either",
            f"set {variable.name} in the environment that rlhfctl is started in",
        )
        for loc, pod in pods(spec)
        for index, variable in enumerate(pod.env or ())
        if variable.value_from is not None and variable.name not in names
    ]


def _ranks(spec: RLHFRunSpec, machine: Machine) -> list[Problem]:
    return [
        Problem(
            (*loc, "processesPerNode"),
            f"{compute.world_size} ranks (nodes {compute.nodes} times processesPerNode {compute.processes_per_node}), "
            f"and this machine has {machine.cores} cores",
            f"write at most {max(1, machine.cores // compute.nodes)}" + (", and nodes: 1" if compute.nodes > 1 else ""),
            value=compute.processes_per_node,
        )
        for loc, compute in all_of(spec, Compute)
        if compute.world_size > machine.cores
    ]


def _gangs(spec: RLHFRunSpec, machine: Machine) -> list[Problem]:
    """All nodes of a training run at once. What one node alone wants too many of is said elsewhere."""
    problems = []
    for loc, compute in all_of(spec, Compute):
        own = compute.pod.resources if compute.pod is not None else None
        shared = spec.pod_defaults.resources
        limits = {**(shared.limits if shared is not None else {}), **(own.limits if own is not None else {})}
        count = gpu_limit(limits) or 0
        if count <= machine.gpus < count * compute.nodes:
            wrong = f"{compute.nodes} nodes of {count} GPUs run together, and this machine has {machine.gpus}"
            problems.append(Problem((*loc, "nodes"), wrong, f"write at most {machine.gpus // count}", value=compute.nodes))
    return problems


def _gpus(spec: RLHFRunSpec, machine: Machine) -> list[Problem]:
    problems = []
    for loc, pod in pods(spec):
        count = None if pod.resources is None else gpu_limit(pod.resources.limits)
        if pod.resources is not None and count is not None and count > machine.gpus:
            have = f"{machine.gpus} GPUs" if machine.gpus else "no GPU"
            right = f"write at most {machine.gpus}" if machine.gpus else "use --cpu to go without, or remove the limit"
            place = (*loc, "resources", "limits", GPU)
            problems.append(Problem(place, f"this machine has {have}", right, value=pod.resources.limits[GPU]))
    return problems
