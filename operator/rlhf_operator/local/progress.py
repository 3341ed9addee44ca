"""Progress that stages write for the live display (RLHF_PROGRESS), summed over the shards of an attempt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .events import Progress


def progress_file(attempt_folder: Path, index: int) -> Path:
    return attempt_folder / f"progress-{index}.json"


def read_progress(attempt_folder: Path) -> Progress | None:
    """None while no shard has said anything. A file that cannot be read counts as not written: this is for display only."""
    entries = [entry for path in sorted(attempt_folder.glob("progress-*.json")) if (entry := _read(path)) is not None]
    if not entries:
        return None
    totals = [entry.get("total") for entry in entries]
    known = [float(total) for total in totals if total is not None]
    newest = entries[-1]
    return Progress(
        done=sum(float(entry["done"]) for entry in entries),
        total=sum(known) if len(known) == len(totals) else None,
        unit=str(newest.get("unit", "")),
        detail=str(newest.get("detail", "")),
        shards_done=sum(
            total is not None and float(entry["done"]) >= float(total) for entry, total in zip(entries, totals, strict=True)
        ),
        shards=len(entries),
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_text())
        float(entry["done"]), float(entry.get("total") or 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(entry)
