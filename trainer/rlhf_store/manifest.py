"""manifest.json: what an artifact is, what it was made from, and every file of it with its digest.

Equal work gives equal bytes: no time stamps, no names of attempts, canonical JSON.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from rlhf_api.base import Model, Sha256
from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.metrics import Metric, MetricValue
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, StageName

from .errors import Corrupted
from .store import check_key

MANIFEST = "manifest.json"
#: Of the manifest itself. A stage's format version is in its fingerprint.
MANIFEST_FORMAT = 1

RelativePath = Annotated[str, AfterValidator(check_key)]


class FileEntry(Model):
    """A file: `path` is its name for whoever reads the artifact, `key` where it lies under the artifact's folder."""

    path: RelativePath
    key: RelativePath
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Sha256


class ExternalModel(Model):
    """A model that is no artifact of this store."""

    uri: str
    revision: str | None = None


class ModelLineage(Model):
    """Of an artifact that is a model."""

    base: str | None = None
    """What it descends from, for the lineage check of judges: a uri; absent: unknown."""


class Manifest(Model):
    format_version: int = MANIFEST_FORMAT
    kind: ArtifactKind
    fingerprint: Sha256
    stage: StageName
    inputs: list[ArtifactRef | ExternalModel] = []
    config: dict[str, Any] = {}
    """The stage's work, canonical, on the wire form: with `inputs`, the lineage back to every config."""
    files: list[FileEntry] = []
    """Ordered by path."""
    rows: int | None = None
    """Of data."""
    iterate: int | None = None
    """Of a policy: pi_t's t."""
    model: ModelLineage | None = None
    metrics: dict[Metric, MetricValue] = {}
    counts: dict[str, int] = {}
    """Of what was read, kept, dropped (by reason)."""
    libraries: dict[str, str] = {}
    """Versions, by name."""

    def to_bytes(self) -> bytes:
        return canonical_json(self.to_wire())

    def file(self, path: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.path == path), None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def parse_manifest(data: bytes, url: str, kind: ArtifactKind, fingerprint: str) -> Manifest:
    """Raises Corrupted where `data` is no manifest, or not the one of this artifact."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Corrupted(f"the manifest cannot be read ({place}: {first['msg']})", url) from error
    if manifest.format_version > MANIFEST_FORMAT:
        raise Corrupted(
            f"the manifest has format {manifest.format_version}, and this version reads up to {MANIFEST_FORMAT}",
            url,
            "Use the version of rlhf-operator that wrote it, or a newer one.",
        )
    if (manifest.kind, manifest.fingerprint) != (kind, fingerprint):
        raise Corrupted(f"the manifest is of {manifest.kind}/{manifest.fingerprint}", url)
    return manifest
