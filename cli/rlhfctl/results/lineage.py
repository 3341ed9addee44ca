"""From a checkpoint back to every artifact, model and data source that it was made from, by the manifests' inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_api.stage import ArtifactRef
from rlhf_store import Artifact, ExternalModel, Manifest, Store, StoreError, open_artifact

from .model import LineageNode


def lineage_of(artifact: Artifact, store: Store, missing: list[str]) -> LineageNode:
    """The tree below `artifact`. What appears again is named again, without its inputs. Problems are added to `missing`."""
    return _Walk(store, missing).node(artifact)


class _Walk:
    def __init__(self, store: Store, missing: list[str]) -> None:
        self._store = store
        self._missing = missing
        self._seen: set[str] = set()

    def node(self, artifact: Artifact) -> LineageNode:
        digest, label = artifact.ref.digest, label_of(artifact.manifest)
        if digest in self._seen:
            return LineageNode(label, "", digest, repeated=True)
        self._seen.add(digest)
        inputs = [self._input(item) for item in artifact.manifest.inputs]
        models = {item.uri for item in artifact.manifest.inputs if isinstance(item, ExternalModel)}
        inputs += [node for node in sources(artifact.manifest.config) if not any(node.location.startswith(uri) for uri in models)]
        return LineageNode(label, f"{artifact.ref.kind}/{artifact.ref.fingerprint[:16]}", digest, tuple(inputs))

    def _input(self, item: ArtifactRef | ExternalModel) -> LineageNode:
        if isinstance(item, ExternalModel):
            return LineageNode("model", item.uri + (f"@{item.revision}" if item.revision else ""), "")
        try:
            return self.node(open_artifact(self._store, item))
        except StoreError as error:
            self._missing.append(f"lineage: {error}")
            return LineageNode(f"{item.kind} (cannot be read any more)", f"{item.kind}/{item.fingerprint[:16]}", item.digest)


def label_of(manifest: Manifest) -> str:
    """`π2, trained`, `samples, 16,000 rows`."""
    label = manifest.kind.value if manifest.iterate is None else f"π{manifest.iterate}, {manifest.kind}"
    return f"{label} from {manifest.stage}" + (f", {manifest.rows:,} rows" if manifest.rows is not None else "")


def sources(config: dict[str, Any]) -> Iterator[LineageNode]:
    """Every source from outside that a stage's configuration names, once."""
    found: dict[str, str] = {}
    _find_sources(config, "data", found)
    for location, label in found.items():
        yield LineageNode(label, location, "")


def _find_sources(value: Any, label: str, found: dict[str, str]) -> None:
    if isinstance(value, dict):
        uri = value.get("uri")
        if isinstance(uri, str):
            revision = value.get("revision")
            name = value.get("name")
            found.setdefault(uri + (f"@{revision}" if revision else ""), f"{label} {name}" if name else label)
        for key, child in value.items():
            _find_sources(child, _LABELS.get(key, label), found)
    elif isinstance(value, list):
        for child in value:
            _find_sources(child, label, found)


_LABELS = {"prompts": "prompts", "data": "data", "policy": "model", "model": "model", "base": "model", "initial": "model"}
