"""Artifacts: <store>/<kind>/<fingerprint>/ with files and, written last and only once, manifest.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf_api.base import Model
from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, StageName

from .errors import AlreadyExists, Corrupted, Incomplete, NotFound
from .manifest import MANIFEST, ExternalModel, FileEntry, Manifest, ModelLineage, RelativePath, parse_manifest, sha256
from .shards import ShardRecord
from .store import Store
from .transfer import Source, digest_of, fetch_files, files_under, upload_files, verify

#: Beside a manifest: which of its files were removed on purpose.
REMOVED = "removed.json"


class RemovedFiles(Model):
    """<kind>/<fingerprint>/removed.json."""

    paths: list[RelativePath]


@dataclass(frozen=True)
class Sealed:
    """An artifact that is whole."""

    ref: ArtifactRef
    manifest: Manifest
    created: bool
    """By this call. False: it was there before."""


@dataclass(frozen=True)
class Artifact:
    """An artifact whose manifest has been read and has the digest that was asked for."""

    store: Store
    ref: ArtifactRef
    manifest: Manifest

    @property
    def url(self) -> str:
        return artifact_url(self.store, self.ref.kind, self.ref.fingerprint)

    def fetch(self, folder: Path, names: Iterable[str] | None = None) -> Path:
        """Download all files, or those named, to `folder`, in parallel and verified; returns `folder`.

        All are all that `remove_files` has left. What is there already with the right digest is kept. Treat the files as read-only.
        Raises Corrupted (file, expected, found); Incomplete (file) where the store has lost one, or the manifest never had it.
        """
        return self._download(self._left() if names is None else [self._entry(name) for name in names], folder)

    def cached(self, scratch: Path, *, without: str | None = None) -> Path:
        """Download to a folder of `scratch` that is this artifact's alone, so that many may share it; all but one file, maybe."""
        entries = [entry for entry in self._left() if entry.path != without]
        return self._download(entries, scratch / f"{self.ref.kind}-{self.ref.digest[:16]}")

    def read(self, name: str) -> bytes:
        """A small file, verified."""
        entry = self._entry(name)
        folder = artifact_folder(self.ref.kind, self.ref.fingerprint)
        try:
            data = self.store.get(f"{folder}/{entry.key}")
        except NotFound as error:
            raise self._missing([entry], error) from error
        verify(digest_of(data), entry, self.store, folder)
        return data

    def _download(self, entries: Iterable[FileEntry], folder: Path) -> Path:
        wanted = list(entries)
        try:
            return fetch_files(self.store, artifact_folder(self.ref.kind, self.ref.fingerprint), wanted, folder)
        except NotFound as error:
            raise self._missing(wanted, error) from error

    def _missing(self, wanted: Iterable[FileEntry], error: NotFound) -> NotFound:
        """What to raise for `error`: itself where somebody has just removed the file on purpose, for then it is missed no more."""
        folder = artifact_folder(self.ref.kind, self.ref.fingerprint)
        removed = removed_files(self)
        gone = [entry for entry in wanted if entry.path not in removed and self.store.head(f"{folder}/{entry.key}") is None]
        if not gone:
            return error
        others = f", and so {'is another' if len(gone) == 2 else f'are {len(gone) - 1} others'}" if len(gone) > 1 else ""
        return Incomplete(
            f"this file of the sealed artifact {folder} is gone{others}",
            f"{self.url}/{gone[0].key}",
            f"Remove the folder {self.url} from the store, with its {MANIFEST}: while that is there, the artifact is taken for "
            "whole. Then delete the run and begin it again, with what it finds in the store: the stage that makes it runs again.",
        )

    def _left(self) -> list[FileEntry]:
        gone = removed_files(self)
        return [entry for entry in self.manifest.files if entry.path not in gone]

    def _entry(self, name: str) -> FileEntry:
        entry = self.manifest.file(name)
        if entry is None:
            raise Incomplete("the artifact has no such file", f"{self.url}/{name}", "It is of an older format, or of another kind.")
        return entry


class ArtifactWriter:
    """Collects files, then uploads and seals them. Nothing can be found before `seal` returns.

    The files that are added must stay as they are until then.
    """

    def __init__(self, store: Store, kind: ArtifactKind, fingerprint: str) -> None:
        self._store = store
        self._kind = kind
        self._fingerprint = fingerprint
        self._sources: dict[str, Source] = {}
        self._uploaded: list[FileEntry] = []

    def add_file(self, path: Path, name: str) -> None:
        self._add(name, path)

    def add_bytes(self, data: bytes, name: str) -> None:
        self._add(name, data)

    def add_folder(self, folder: Path, prefix: str = "") -> None:
        """Every file below `folder`, as `prefix` + its relative path."""
        for name, path in files_under(folder, prefix).items():
            self._add(name, path)

    def add_shards(self, records: Mapping[int, ShardRecord]) -> None:
        """Files of committed shards, where they lie: their names must differ between shards."""
        for index in sorted(records):
            for entry in records[index].files:
                self.record(entry)

    def record(self, entry: FileEntry) -> None:
        """A file that lies under the artifact's folder already."""
        self._check_new(entry.path)
        self._uploaded.append(entry)

    def seal(
        self,
        *,
        stage: StageName,
        inputs: Iterable[ArtifactRef | ExternalModel] = (),
        config: Mapping[str, Any] | None = None,
        rows: int | None = None,
        iterate: int | None = None,
        model: ModelLineage | None = None,
        metrics: Mapping[Metric, MetricValue] | None = None,
        counts: Mapping[str, int] | None = None,
        libraries: Mapping[str, str] | None = None,
    ) -> Sealed:
        """Upload what was added, in parallel, then write the manifest if there is none.

        Where there is one, it wins: another attempt was first, its artifact is returned, and ours is never seen.
        """
        uploaded = upload_files(self._store, artifact_folder(self._kind, self._fingerprint), self._sources) if self._sources else []
        manifest = Manifest(
            kind=self._kind,
            fingerprint=self._fingerprint,
            stage=stage,
            inputs=list(inputs),
            config=dict(config or {}),
            files=sorted(uploaded + self._uploaded, key=lambda entry: entry.path),
            rows=rows,
            iterate=iterate,
            model=model,
            metrics=dict(metrics or {}),
            counts=dict(counts or {}),
            libraries=dict(libraries or {}),
        )
        data = manifest.to_bytes()
        try:
            self._store.put(manifest_key(self._kind, self._fingerprint), data, if_absent=True)
        except AlreadyExists:
            found = find_artifact(self._store, self._kind, self._fingerprint)
            if found is None:
                raise  # It was removed in this very moment.
            return found
        ref = ArtifactRef(kind=self._kind, fingerprint=self._fingerprint, digest=sha256(data))
        return Sealed(ref, manifest, created=True)

    def _add(self, name: str, source: Source) -> None:
        self._check_new(name)
        self._sources[name] = source

    def _check_new(self, name: str) -> None:
        if name in self._sources or any(entry.path == name for entry in self._uploaded):
            raise ValueError(f"two files of one artifact are called {name!r}")


def find_artifact(store: Store, kind: ArtifactKind, fingerprint: str) -> Sealed | None:
    """The sealed artifact of this fingerprint; None where there is none. Raises Corrupted where its manifest is damaged."""
    try:
        data = store.get(manifest_key(kind, fingerprint))
    except NotFound:
        return None
    manifest = parse_manifest(data, artifact_url(store, kind, fingerprint) + f"/{MANIFEST}", kind, fingerprint)
    return Sealed(ArtifactRef(kind=kind, fingerprint=fingerprint, digest=sha256(data)), manifest, created=False)


def open_artifact(store: Store, ref: ArtifactRef) -> Artifact:
    """Raises Incomplete where there is none, and Corrupted where the manifest is not the one that `ref` names."""
    found = find_artifact(store, ref.kind, ref.fingerprint)
    if found is None:
        raise Incomplete("there is no sealed artifact", artifact_url(store, ref.kind, ref.fingerprint))
    if found.ref.digest != ref.digest:
        raise Corrupted(
            f"expected a manifest with SHA-256 {ref.digest}, found {found.ref.digest}",
            f"{artifact_url(store, ref.kind, ref.fingerprint)}/{MANIFEST}",
        )
    return Artifact(store, ref, found.manifest)


def remove_files(artifact: Artifact, names: Iterable[str]) -> None:
    """Take files out of a sealed artifact, where they are in it. Its manifest stays, and with it its digest and the other files'.

    What goes is noted beside the manifest first, so that nobody takes an artifact for damaged.
    """
    entries = [entry for name in names if (entry := artifact.manifest.file(name)) is not None]
    if not entries:
        return
    folder = artifact_folder(artifact.ref.kind, artifact.ref.fingerprint)
    gone = removed_files(artifact) | {entry.path for entry in entries}
    artifact.store.put(f"{folder}/{REMOVED}", canonical_json(RemovedFiles(paths=sorted(gone)).to_wire()))
    artifact.store.delete([f"{folder}/{entry.key}" for entry in entries])


def removed_files(artifact: Artifact) -> frozenset[str]:
    """What `remove_files` took out of it. Raises Corrupted where the note cannot be read."""
    key = f"{artifact_folder(artifact.ref.kind, artifact.ref.fingerprint)}/{REMOVED}"
    try:
        return frozenset(RemovedFiles.model_validate_json(artifact.store.get(key)).paths)
    except NotFound:
        return frozenset()
    except ValidationError as error:
        raise Corrupted("the note of removed files cannot be read", f"{artifact.store.url}/{key}") from error


def artifact_folder(kind: ArtifactKind, fingerprint: str) -> str:
    return f"{kind}/{fingerprint}"


def manifest_key(kind: ArtifactKind, fingerprint: str) -> str:
    return f"{artifact_folder(kind, fingerprint)}/{MANIFEST}"


def artifact_url(store: Store, kind: ArtifactKind, fingerprint: str) -> str:
    return f"{store.url}/{artifact_folder(kind, fingerprint)}"
