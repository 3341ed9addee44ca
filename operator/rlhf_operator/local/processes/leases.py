"""Which process has which of the machine's devices (ADR 0029)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhf_operator.core.actions import CreateJob
from rlhf_operator.core.jobs.execution import CPU_STAGES

from .machine import VISIBLE_DEVICES, Machine, visible_gpus
from .sizing import gpus


class Leases:
    """Devices of one kind, and who holds them. Belongs to the supervisor's thread."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._free = list(devices)
        self._held: dict[str, tuple[str, ...]] = {}

    def take(self, holder: str, count: int) -> tuple[str, ...] | None:
        """`count` free devices; None where there are fewer. What the holder has already it keeps, and gets no more."""
        if holder in self._held:
            return self._held[holder]
        if count > len(self._free):
            return None
        taken = tuple(self._free[:count])
        del self._free[:count]
        self._held[holder] = taken
        return taken

    def give_back(self, holder: str) -> None:
        """All that the holder has, if anything."""
        self._free = sorted([*self._free, *self._held.pop(holder, ())])

    def free(self) -> int:
        return len(self._free)


class Devices:
    """The GPUs, which pods hold; and the cores, which an attempt without GPUs holds with all of its pods."""

    def __init__(self, machine: Machine, environment: Mapping[str, str]) -> None:
        self._machine = machine
        ours = visible_gpus(environment)
        self._gpus = Leases([str(number) for number in range(machine.gpus)] if ours is None else ours[: machine.gpus])
        self._cores = Leases(["cores"])

    def needed(self, action: CreateJob) -> bool:
        return action.config.stage not in CPU_STAGES

    def take(self, action: CreateJob, pods: Sequence[str]) -> Mapping[str, tuple[str, ...]] | None:
        """GPUs for these pods of an attempt, all or none; None: not now."""
        if not self.needed(action):
            return dict.fromkeys(pods, ())
        wanted = gpus(action, self._machine)
        if not wanted:
            return None if self._cores.take(action.name, 1) is None else dict.fromkeys(pods, ())
        if wanted * len(pods) > self._gpus.free():
            return None
        return {pod: self._gpus.take(pod, wanted) or () for pod in pods}

    def give_back(self, holder: str) -> None:
        """Of a pod that has ended, or of an attempt that has no pod at work."""
        self._gpus.give_back(holder)
        self._cores.give_back(holder)

    def missing(self, action: CreateJob, pods: int) -> str:
        """What an attempt waits for whose first `pods` pods got nothing."""
        wanted = gpus(action, self._machine) * pods
        if not wanted:
            return "another stage of this run has the cores of this machine."
        if wanted > self._gpus.free():
            return f"it wants {wanted} of this machine's GPUs to begin, and {self._gpus.free()} are free now."
        return "another stage of this run is before it in line for this machine's GPUs."


def visible(devices: Sequence[str]) -> dict[str, str]:
    """The environment of a process that has leased these GPUs; of one that wanted none, nothing."""
    return {VISIBLE_DEVICES: ",".join(devices)} if devices else {}
