"""Processes as /proc shows them: those of one pod, by the mark that they carry, and the memory of a whole tree."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

MARKER = "RLHF_POD_UID"
_PROC = Path("/proc")
#: Between two samples of the memory of a tree.
_SAMPLE_SECONDS = 1.0


def of_pod(uid: str) -> list[int]:
    """Every process of this pod: the stage, its guard, its ranks."""
    wanted = f"{MARKER}={uid}".encode()
    return [pid for pid in _pids() if wanted in _read(pid, "environ").split(b"\0") and _state(pid) != "Z"]


def stage_of_pod(uid: str) -> int | None:
    """The stage process itself, the uppermost that is no guard; None before it has started and when it is gone."""
    own = {pid for pid in of_pod(uid) if b"guard.py" not in _read(pid, "cmdline")}
    return min((pid for pid in own if _parent(pid) not in own), default=None)


def under(folder: Path) -> list[int]:
    """Every process that names something in `folder`, in its arguments or its environment."""
    wanted = os.fsencode(folder)
    return [pid for pid in _pids() if wanted in _read(pid, "cmdline") + _read(pid, "environ") and _state(pid) != "Z"]


def kill(pid: int, number: signal.Signals) -> None:
    """Whether it is stopped or not. (It takes a signal that came while it was stopped in any of its threads.)"""
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)


class PeakMemory:
    """The most memory that a process and all its descendants have held at once, in bytes: a page that several share counts once.

    A context manager; it samples once a second.
    """

    def __init__(self, root: int) -> None:
        self.peak = 0
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(_proportional_bytes(pid) for pid in tree(self._root)))


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def _proportional_bytes(pid: int) -> int:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _pids() -> Iterable[int]:
    return [int(path.name) for path in _PROC.iterdir() if path.name.isdigit()]


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _state(pid: int) -> str:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return fields[0].decode() if fields else "Z"


def _read(pid: int, name: str) -> bytes:
    """Empty for a process that is gone or not ours."""
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
