"""Many files at a time, with their digests: what artifacts, shards and checkpoints have in common."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rlhf_api.conventions.canonical import canonical_json

from .errors import Corrupted
from .file_errors import local_errors
from .manifest import FileEntry, sha256
from .store import Store, check_key

#: Files at a time; the parts of a large one are parallel by themselves.
_FILES_AT_A_TIME = 8

Source = Path | bytes
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Digest:
    size: int
    sha256: str


def upload_files(store: Store, folder: str, sources: Mapping[str, Source]) -> list[FileEntry]:
    """Upload `sources`, by path, under <folder>/<content>/, and describe them relative to `folder`.

    <content> is a hash over the paths and the digests. So two attempts at the same work never write over each other:
    either they write the same bytes, or to another place. Ordered by path.
    """
    paths = sorted(check_key(path) for path in sources)
    digests = dict(zip(paths, _parallel(lambda path: digest_of(sources[path]), paths), strict=True))
    content = sha256(canonical_json([[path, digests[path].sha256] for path in paths]))[:16]
    entries = [
        FileEntry(path=path, key=f"{content}/{path}", size=digests[path].size, sha256=digests[path].sha256) for path in paths
    ]

    def upload(entry: FileEntry) -> None:
        source = sources[entry.path]
        key = f"{folder}/{entry.key}"
        if isinstance(source, bytes):
            store.put(key, source)
        else:
            store.upload(source, key)

    _parallel(upload, entries)
    return entries


def fetch_files(store: Store, folder: str, entries: Iterable[FileEntry], target: Path) -> Path:
    """Download to <target>/<path>, in parallel, and verify each digest. What is there already, and right, is kept.

    Files appear whole and verified: several processes may fetch into one folder. Treat them as read-only; they may
    share their bytes with the store. Raises Corrupted and names the file, what was expected and what was found.
    """
    with local_errors(str(target)):
        target.mkdir(parents=True, exist_ok=True)

    def fetch(entry: FileEntry) -> None:
        path = target / entry.path
        if path.is_file() and path.stat().st_size == entry.size and digest_of(path).sha256 == entry.sha256:
            return
        # Not under its name before it is verified, and under one that no other thread or process takes away.
        unverified = path.with_name(f".{path.name}.{secrets.token_hex(8)}.unverified")
        try:
            store.download(f"{folder}/{entry.key}", unverified)
            verify(digest_of(unverified), entry, store, folder)
            with local_errors(str(path)):
                unverified.replace(path)
        finally:
            # rename() leaves both names where they are one inode already.
            unverified.unlink(missing_ok=True)

    _parallel(fetch, list(entries))
    return target


def download_files(store: Store, keys: Iterable[str], target: Path) -> None:
    """Download to <target>/<key>, in parallel, what no manifest describes. What is there already is kept."""
    missing = [key for key in keys if not (target / check_key(key)).exists()]
    _parallel(lambda key: store.download(key, target / key), missing)


def verify(found: Digest, entry: FileEntry, store: Store, folder: str) -> None:
    if found != Digest(entry.size, entry.sha256):
        raise Corrupted(
            f"expected {entry.size} bytes with SHA-256 {entry.sha256}, found {found.size} bytes with {found.sha256}",
            f"{store.url}/{folder}/{entry.key}",
        )


def files_under(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Every file below `folder`, by `prefix` + its relative path."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {prefix + path.relative_to(folder).as_posix(): path for path in found}


def digest_of(source: Source) -> Digest:
    if isinstance(source, bytes):
        return Digest(len(source), sha256(source))
    with source.open("rb") as file:
        hashed = hashlib.file_digest(file, "sha256")
        return Digest(file.tell(), hashed.hexdigest())


def _parallel(work: Callable[[_Item], _Result], items: list[_Item]) -> list[_Result]:
    """In the order of `items`. The first problem is raised, and what has not begun then does not begin."""
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(max_workers=_FILES_AT_A_TIME, thread_name_prefix="rlhf-store") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
