"""Names, labels and owners of a run's children."""

from __future__ import annotations

from collections.abc import Mapping

from rlhf_api.resource.run import RLHFRun
from rlhf_api.words import API_VERSION, KIND
from rlhf_operator.kubernetes.api.resources import Json


def child_metadata(run: RLHFRun, name: str, labels: Mapping[str, str], annotations: Mapping[str, str] | None = None) -> Json:
    metadata: Json = {
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": dict(labels),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.metadata.name,
                "uid": run.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    return metadata | ({"annotations": dict(annotations)} if annotations else {})


def is_owned_by(obj: Json, run: RLHFRun) -> bool:
    """Ours is what our run's UID controls, whatever its labels say."""
    return any(owner.get("controller") and owner["uid"] == run.metadata.uid for owner in obj["metadata"].get("ownerReferences", ()))
