"""Progress that stages write for the live display (RLHF_PROGRESS), summed over the shards of an attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlhf_api.base import Model
from rlhf_operator.core.actions import Topology
from rlhf_operator.local.events import Progress

from .records import read_record


def progress_file(attempt_folder: Path, index: int) -> Path:
    return attempt_folder / f"progress-{index}.json"


def read_progress(attempt_folder: Path) -> Progress | None:
    """None while no shard has said anything. A file that cannot be read counts as not written: this is for display only."""
    entries = [entry for path in sorted(attempt_folder.glob("progress-*.json")) if (entry := _read(path)) is not None]
    if not entries:
        return None
    record = read_record(attempt_folder)
    shards = record.completions if record is not None and record.topology is Topology.SHARDED else len(entries)
    totals = [entry.total for entry in entries if entry.total is not None]
    newest = entries[-1]
    return Progress(
        done=sum(entry.done for entry in entries),
        total=sum(totals) if len(totals) == shards else None,
        unit=newest.unit,
        detail=newest.detail,
        shards_done=sum(entry.total is not None and entry.done >= entry.total for entry in entries),
        shards=shards,
    )


class _Said(Model):
    """One shard's file."""

    done: Annotated[float, Field(allow_inf_nan=False)]
    total: Annotated[float, Field(allow_inf_nan=False)] | None = None
    unit: str = ""
    detail: str = ""


def _read(path: Path) -> _Said | None:
    try:
        return _Said.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
