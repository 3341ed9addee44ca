"""DeepSpeed checkpoints of a training stage: saved by all ranks together, in the store when the last of them is through.

An attempt goes on from the newest complete one of this or any former attempt. Another number of ranks is refused: ZeRO's partitions
are cut by rank.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from rlhf_store import CheckpointRecord, Store
from rlhf_store import Checkpoints as StoredCheckpoints
from rlhf_trainer.runtime.errors import ApplicationProblem, ConfigurationProblem

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Place:
    """Where in the job this process is."""

    attempt: int
    node: int


class Checkpoints:
    """All methods are collective."""

    def __init__(self, store: Store, fingerprint: str, place: Place, scratch: Path, metrics_file: Path) -> None:
        self._stored = StoredCheckpoints(store, fingerprint)
        self._place = place
        self._scratch = scratch
        self._metrics_file = metrics_file

    def save(self, engine: Any, step: int) -> None:
        """What is in the store afterwards is whole, or is not marked complete. Older ones go."""
        name = f"step-{step:07d}-attempt-{self._place.attempt}{_world_suffix()}"
        folder = self._scratch / name
        engine.save_checkpoint(str(folder), tag="state", client_state={"step": step})
        if dist.get_rank() == 0:
            shutil.copy(self._metrics_file, folder / METRICS)
        dist.barrier()
        entries = []
        if _first_of_node():
            entries = self._stored.upload(name, folder)
            shutil.rmtree(folder)
        by_rank: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(by_rank, entries)
        if dist.get_rank() == 0:
            self._stored.complete(name, step, {entry.path: entry for part in by_rank for entry in part}.values())
            self._stored.keep_newest(1)
        dist.barrier()

    def restore(self, engine: Any) -> int:
        """Load the newest complete checkpoint; the number of steps done, 0 without one."""
        newest = [self._stored.newest_complete() if dist.get_rank() == 0 else None]
        dist.broadcast_object_list(newest)
        record: CheckpointRecord | None = newest[0]
        if record is None:
            return 0
        if not record.name.endswith(_world_suffix()):
            raise ConfigurationProblem(
                f"Step {record.step} of this training is kept in checkpoint {record.name}, and {dist.get_world_size()} ranks "
                "cannot read it: ZeRO's partitions are cut by rank. Set nodes x processesPerNode to what it was, or delete "
                f"checkpoint/{self._stored.fingerprint} from the store to begin again."
            )
        folder = self._scratch / "restore"
        if _first_of_node():
            self._stored.fetch(record, folder)
        dist.barrier()
        loaded, _ = engine.load_checkpoint(str(folder), tag="state")
        if loaded is None:
            raise ApplicationProblem(f"DeepSpeed cannot load checkpoint {record.name}. Delete it from the store to begin again.")
        if dist.get_rank() == 0:
            # Not its mode: what comes from a store of this machine is read-only.
            shutil.copyfile(folder / METRICS, self._metrics_file)
        dist.barrier()
        if _first_of_node():
            shutil.rmtree(folder)
        return record.step


def _world_suffix() -> str:
    return f"-world-{dist.get_world_size()}"


def _first_of_node() -> bool:
    return int(os.environ.get("LOCAL_RANK", "0")) == 0
