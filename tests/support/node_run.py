"""The quickstart's mini run as a cluster runs it: model and data in the store, stages in pods that one small node has room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf_api.resource.storage import Storage
from rlhf_store import open_store
from support.mini import make_world, read_manifest

#: Two of these fit a node of two cores beside the operator and what the cluster itself runs there.
RESOURCES = {"requests": {"cpu": "700m", "memory": "1Gi"}, "limits": {"memory": "6Gi"}}
_INPUTS = "inputs"


def manifest(name: str, folder: Path, *, seen_here: Storage, seen_there: Storage, **changes: Any) -> dict[str, Any]:
    """A manifest of two iterations, sampling in two shards and training on two nodes. What it reads is in the store afterwards.

    The store is named twice, as this machine reaches it and as pods do. `changes` are of the spec.
    """
    found = read_manifest(make_world(folder, size="mini"))
    store = open_store(seen_here)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "run.yaml":
            store.upload(path, f"{_INPUTS}/{path.relative_to(folder)}")
    run: dict[str, Any] = _moved(found, f"file://{folder.resolve()}", f"{store.url}/{_INPUTS}")
    run["metadata"] = {"name": name}
    spec = run["spec"]
    spec |= {"iterations": 2, "storage": seen_there.to_wire(), "podDefaults": {"resources": RESOURCES, "shmSize": "1Gi"}}
    spec["prompts"]["perIteration"] //= 2
    for section in (spec["sft"], spec["reward"]["bradleyTerry"]["train"]):
        section["compute"] = {"processesPerNode": 1}
    spec["train"] |= {"compute": {"nodes": 2, "processesPerNode": 1}, "checkpointEverySteps": 5}
    # Steps enough for something to happen between them.
    spec["train"]["optimization"] |= {"globalBatchSize": 8, "epochs": 10.0}
    spec |= changes
    return run


def _moved(value: Any, before: str, after: str) -> Any:
    """A copy of a manifest in which all URIs below one folder lie below another."""
    if isinstance(value, dict):
        return {name: _moved(entry, before, after) for name, entry in value.items()}
    if isinstance(value, list):
        return [_moved(entry, before, after) for entry in value]
    if isinstance(value, str):
        return value.replace(before, after)
    return value
