"""Disk and shared memory of the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

LOW_DISK = 5 * 2**30
SHM_PER_RANK = 64 * 2**20


def shortages(scratch: Path, ranks: int) -> list[str]:
    """Warnings on disk and shared memory."""
    found = []
    free = shutil.disk_usage(scratch).free
    if free < LOW_DISK:
        found.append(f"Only {free / 2**30:.1f} GiB are free on {scratch}; models and checkpoints pass through it.")
    if Path("/dev/shm").is_dir():  # noqa: S108 (its size is what we look at)
        shm = shutil.disk_usage("/dev/shm").total  # noqa: S108
        if shm < SHM_PER_RANK * ranks:
            found.append(f"/dev/shm has {shm / 2**20:.0f} MiB for {ranks} ranks; set pod.shmSize.")  # noqa: S108
    return found
