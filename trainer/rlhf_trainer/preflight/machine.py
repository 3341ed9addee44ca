"""Disk and shared memory of the machine, and what else a stage would miss on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from rlhf_api.resource.run import RLHFRunSpec
from rlhf_api.words import STAGE_ARTIFACT
from rlhf_operator.core.jobs.pods import pod_of
from rlhf_trainer.tracking.trackers import not_installed

LOW_DISK = 5 * 2**30
SHM_PER_RANK = 64 * 2**20


def without_client(spec: RLHFRunSpec, environment: Mapping[str, str]) -> list[str]:
    """Warnings on trackers that a stage would be asked to tell, and whose client is not in this image: it is that of all stages."""
    found: dict[str, None] = {}
    for stage in STAGE_ARTIFACT:
        # What a Secret holds is not known here, and need not be: that it is set switches a tracker on.
        own = {
            variable.name: variable.value or ("" if variable.value_from is None else "set")
            for variable in pod_of(spec, stage).env or []
        }
        found |= {tracker.not_installed: None for tracker in not_installed({**environment, **own})}
    return list(found)


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
