"""What this machine has: cores, memory, GPUs, and the kernel's count of processes that it killed for memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Machine:
    cores: int
    gpus: int
    """Those that this process may use."""
    memory: Callable[[], int]
    """Bytes available now."""
    oom_kills: Callable[[], int | None]
    """Rises when the kernel kills a process for memory; None where it cannot be read."""


def this_machine() -> Machine:
    return Machine(cores=_cores(), gpus=_gpus(), memory=_available, oom_kills=_oom_kills)


def visible_gpus(environment: Mapping[str, str]) -> list[str] | None:
    """The names in CUDA_VISIBLE_DEVICES; None where it is not set, and all are."""
    names = environment.get(VISIBLE_DEVICES)
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def _gpus() -> int:
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    ours = visible_gpus(os.environ)
    return there if ours is None else min(there, len(ours))


def _cores() -> int:
    """What we may run on, by affinity and by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    quota, _, period = _read(_own_cgroup() / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _available() -> int:
    available = _field(_read(Path("/proc/meminfo")), "MemAvailable:") * 1024
    group = _own_cgroup()
    limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        available = min(available, max(0, int(limit) - int(used)))
    return available


def _oom_kills() -> int | None:
    """Of our cgroup, which counts its descendants too; else of the whole machine."""
    for path in (_own_cgroup() / "memory.events", Path("/proc/vmstat")):
        text = _read(path)
        if "oom_kill " in text:
            return _field(text, "oom_kill ")
    return None


def _own_cgroup() -> Path:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            return _CGROUP / line[3:].lstrip("/")
    return _CGROUP


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line[len(name) :].split()[0])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
