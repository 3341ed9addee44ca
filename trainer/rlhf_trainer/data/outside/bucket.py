"""s3:// beside the run's own store: the same endpoint and credentials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rlhf_api.resource.storage import Storage
from rlhf_store import ObjectInfo, Store, download_files, open_store
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .headers import WEIGHTS, Part, ReadPart, write_headers

#: How the revisions of objects begin; those that versions before ADR 0021 recorded are digests of contents, 40 hex digits.
_PREFIX = "objects-"
_REQUESTS_AT_A_TIME = 16


def is_of_objects(revision: str) -> bool:
    """Whether it is one of `Objects.revision`."""
    return revision.startswith(_PREFIX)


@dataclass(frozen=True)
class Objects:
    """What lies under a uri, as it was listed. `alone`: the uri names the one object itself, not a folder."""

    uri: str
    store: Store
    found: Sequence[ObjectInfo]
    alone: bool

    def revision(self) -> str:
        """A digest over names, sizes and what the store keeps of the contents; nothing of them is read. Raises StoreError."""
        digest = hashlib.sha256()
        with ThreadPoolExecutor(_REQUESTS_AT_A_TIME, thread_name_prefix="checksums") as pool:
            checksums = pool.map(lambda info: self.store.checksum(info.key), self.found)
            for info, checksum in zip(self.found, checksums, strict=True):
                digest.update(f"{info.key}\0{info.size}\0{checksum}\0".encode())
        return f"{_PREFIX}{digest.hexdigest()[:40]}"

    def download(self, folder: Path) -> Path:
        """What the uri names, in `folder`. What is there already is kept. Raises StoreError."""
        download_files(self.store, [info.key for info in self.found], folder)
        return folder / self.found[0].key if self.alone else folder

    def download_without_weights(self, folder: Path) -> None:
        """The same, with the header alone of each weights file. Raises StoreError, ConfigurationProblem."""
        weights = [info for info in self.found if PurePosixPath(info.key).match(WEIGHTS)]
        download_files(self.store, [info.key for info in self.found if info not in weights], folder)
        write_headers(folder, {info.key: self._reader(info) for info in weights}, self.uri)

    def _reader(self, info: ObjectInfo) -> ReadPart:
        return lambda start, length: Part(self.store.get_range(info.key, start, length), info.size)


def objects_of(uri: str, storage: Storage, wanted: Callable[[str], bool]) -> Objects:
    """Those whose key under `uri` is wanted, else the object `uri` itself. Raises ConfigurationProblem where there are none."""
    uri = uri.rstrip("/")
    store = open_store(storage.model_copy(update={"url": uri}))
    # Consoles make an object for a folder: it has the folder's name, and nothing in it.
    found = [info for info in store.list() if info.key and not info.key.endswith("/") and wanted(info.key)]
    if found:
        return Objects(uri, store, found, alone=False)
    bucket_url, _, name = uri.rpartition("/")
    parent = open_store(storage.model_copy(update={"url": bucket_url}))
    itself = parent.head(name)
    if itself is None:
        raise ConfigurationProblem(f"{uri} does not exist or is empty.")
    return Objects(uri, parent, [itself], alone=True)
