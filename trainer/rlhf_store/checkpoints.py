"""checkpoint/<fingerprint>/: where training stands, so that another attempt goes on from there. Never shared with other work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from rlhf_api.base import Model
from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.words import ArtifactKind

from .errors import Incomplete, NotFound
from .manifest import FileEntry
from .store import Store
from .transfer import fetch_files, files_under, upload_files


class CheckpointRecord(Model):
    """<name>.json: written last, so the checkpoint is whole."""

    name: str
    step: int
    files: list[FileEntry]


@dataclass(frozen=True)
class Checkpoints:
    """Of one training, by the fingerprint of its work.

    Each node uploads what it holds (`upload`), one process then gathers the entries and calls `complete`.
    `name` is of one attempt alone: step-000200-attempt-2.
    """

    store: Store
    fingerprint: str

    def upload(self, name: str, folder: Path) -> list[FileEntry]:
        """Every file below `folder`, in parallel."""
        entries = upload_files(self.store, f"{self._folder}/{name}", files_under(folder))
        return [entry.model_copy(update={"key": f"{name}/{entry.key}"}) for entry in entries]

    def complete(self, name: str, step: int, files: Iterable[FileEntry]) -> CheckpointRecord:
        """All files of all nodes are uploaded: from now on it can be found."""
        record = CheckpointRecord(name=name, step=step, files=sorted(files, key=lambda entry: entry.path))
        self.store.put(f"{self._folder}/{name}.json", canonical_json(record.to_wire()))
        return record

    def newest_complete(self) -> CheckpointRecord | None:
        """The one with most steps, of any attempt. A record that cannot be read is no checkpoint."""
        return max(self._records(), key=lambda record: (record.step, record.name), default=None)

    def fetch(self, record: CheckpointRecord, folder: Path) -> Path:
        """Download and verify. Raises Corrupted; Incomplete where a file of it is gone, and it was not removed meanwhile."""
        try:
            return fetch_files(self.store, self._folder, record.files, folder)
        except NotFound as error:
            key = f"{self._folder}/{record.name}.json"
            if self.store.head(key) is None:
                raise
            raise Incomplete(
                f"this file of checkpoint {record.name} is gone",
                error.url,
                f"Remove {self.store.url}/{key} from the store, then delete the run and begin it again: training goes on from an "
                "earlier checkpoint, or from its beginning.",
            ) from error

    def remove(self, name: str) -> None:
        """The record first, so that nobody begins to read what is going away."""
        self.store.delete([f"{self._folder}/{name}.json"])
        self.store.delete([entry.key for entry in self.store.list(f"{self._folder}/{name}/")])

    def keep_newest(self, count: int) -> None:
        """Remove all complete ones but the `count` newest."""
        records = sorted(self._records(), key=lambda record: (record.step, record.name))
        for record in records[: max(0, len(records) - count)]:
            self.remove(record.name)

    def remove_all(self) -> None:
        """What any attempt has left, complete or not."""
        for record in list(self._records()):
            self.remove(record.name)
        self.store.delete([entry.key for entry in self.store.list(f"{self._folder}/")])

    @property
    def _folder(self) -> str:
        return f"{ArtifactKind.CHECKPOINT}/{self.fingerprint}"

    def _records(self) -> Iterable[CheckpointRecord]:
        for entry in self.store.list(f"{self._folder}/"):
            name = entry.key.removeprefix(f"{self._folder}/")
            if "/" in name or not name.endswith(".json"):
                continue
            try:
                yield CheckpointRecord.model_validate_json(self.store.get(entry.key))
            except (ValidationError, NotFound):
                continue
