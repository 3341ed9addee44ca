"""Artifacts to test with."""

from __future__ import annotations

from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, Sealed, Store

FINGERPRINT = "a" * 64
KIND = ArtifactKind.SAMPLES


def seal(store: Store, files: dict[str, bytes], *, fingerprint: str = FINGERPRINT) -> Sealed:
    """Seal `files`, by name, as samples."""
    writer = ArtifactWriter(store, KIND, fingerprint)
    for name, data in files.items():
        writer.add_bytes(data, name)
    return writer.seal(stage=StageName.SAMPLE, rows=len(files))


def keys(store: Store, prefix: str = "") -> list[str]:
    return [entry.key for entry in store.list(prefix)]
