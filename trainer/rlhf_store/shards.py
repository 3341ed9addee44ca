"""Shards of an artifact that is not sealed yet: each is committed once, and whoever sees all of them seals.

They lie under their number, shards-<n>/, so that another number starts clean.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from pydantic import ValidationError

from rlhf_api.base import Model
from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.words import ArtifactKind

from .errors import AlreadyExists, Corrupted, NotFound
from .manifest import FileEntry
from .store import Store
from .transfer import Source, upload_files


class ShardRecord(Model):
    """shards-<n>/<index>.json: written last, so the shard is whole."""

    index: int
    files: list[FileEntry]
    """With keys under the artifact's folder."""
    rows: int = 0
    counts: dict[str, int] = {}
    """Of what was read, kept, dropped (by reason)."""


def commit_shard(
    store: Store,
    kind: ArtifactKind,
    fingerprint: str,
    shards: int,
    index: int,
    files: Mapping[str, Source],
    *,
    rows: int = 0,
    counts: Mapping[str, int] | None = None,
) -> ShardRecord:
    """Upload `files`, by name, then the record. Where there is a record already, it wins and is returned.

    Names must differ between shards: they are the names in the artifact.
    """
    folder = _folder(kind, fingerprint)
    base = _name(shards, index)
    entries = [entry.model_copy(update={"key": f"{base}/{entry.key}"}) for entry in upload_files(store, f"{folder}/{base}", files)]
    record = ShardRecord(index=index, files=entries, rows=rows, counts=dict(counts or {}))
    try:
        store.put(f"{folder}/{base}.json", canonical_json(record.to_wire()), if_absent=True)
    except AlreadyExists:
        return _read(store, f"{folder}/{base}.json", index)
    return record


def committed_shards(store: Store, kind: ArtifactKind, fingerprint: str, shards: int) -> dict[int, ShardRecord]:
    """Those of a split into `shards` that are whole, by index."""
    folder = _folder(kind, fingerprint)
    there = {entry.key for entry in store.list(f"{folder}/shards-{shards}/")}
    found = {}
    for index in range(shards):
        key = f"{folder}/{_name(shards, index)}.json"
        # It may be removed in this very moment.
        if key in there:
            with suppress(NotFound):
                found[index] = _read(store, key, index)
    return found


def remove_shards(store: Store, kind: ArtifactKind, fingerprint: str, shards: int) -> None:
    """Those of a split into `shards` are committed no more: each is redone. Of one that is broken off some may be left.

    Their files stay where they are: another worker may be sealing the very same.
    """
    folder = _folder(kind, fingerprint)
    store.delete([f"{folder}/{_name(shards, index)}.json" for index in range(shards)])


def _read(store: Store, key: str, index: int) -> ShardRecord:
    try:
        record = ShardRecord.model_validate_json(store.get(key))
    except ValidationError as error:
        raise Corrupted("the record of a shard cannot be read", f"{store.url}/{key}") from error
    if record.index != index:
        raise Corrupted(f"the record is of shard {record.index}", f"{store.url}/{key}")
    return record


def _folder(kind: ArtifactKind, fingerprint: str) -> str:
    return f"{kind}/{fingerprint}"


def _name(shards: int, index: int) -> str:
    return f"shards-{shards}/{index:05d}"
