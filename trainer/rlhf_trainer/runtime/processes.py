"""What processes of a stage owe each other: none outlives the one that started it."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CGROUP = Path("/sys/fs/cgroup")
#: Memory of a process that works on data, with a tokenizer of 128,000 tokens.
_MEMORY_OF_ONE = 400 * 2**20
#: One process that reads keeps no more of them at work, and a pod without limits sees all of its node.
_MOST = 32
#: This process was forked from the fork server: what it forks has every import, what it starts has none.
warm = False


def exit_code_of(work: Callable[[], int]) -> int:
    """What `work` comes to in a forked process that ends with it; what it raises is printed, for nobody else would tell of it."""
    try:
        return work()
    except SystemExit as refused:
        return refused.code if isinstance(refused.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1


def die_with(parent: int) -> None:
    """This process gets SIGKILL when its parent `parent` ends, however that ends; at once where it has ended already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(-signal.SIGKILL & 0xFF)


def processes_for(pieces: int) -> int:
    """How many processes share so many pieces of work: one for each core that this one may use and has memory for."""
    cores = [len(os.sched_getaffinity(0)), pieces, _MOST]
    # As the operator counts the cores of a container, who sees those of the node. OpenMP takes a list, a level each.
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if threads.isdigit():
        cores.append(int(threads))
    quota, _, period = _limit("cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        cores.append(math.ceil(int(quota) / int(period)))
    memory = _limit("memory.max")
    room = [int(memory)] if memory.isdigit() else []
    room += [int(line.split()[1]) * 1024 for line in _read(Path("/proc/meminfo")).splitlines() if line.startswith("MemAvailable:")]
    return max(1, min(cores + [size // (2 * _MEMORY_OF_ONE) for size in room]))


def _limit(name: str) -> str:
    """Of this process's container; empty where there is none, or nobody tells."""
    return _read(_CGROUP / name).strip()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
