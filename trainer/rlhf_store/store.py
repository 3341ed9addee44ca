"""A store: flat keys under one URL, the same promises for s3:// and file://."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .errors import AlreadyExists, ConditionalWritesUnsupported, Corrupted, StoreError

#: How long a store may be away before an operation gives up, over all its retries.
RETRY_SECONDS = 120.0


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size: int
    """Bytes."""


class Store(Protocol):
    """Keys are relative to `url`, with / between their parts. Each object appears whole or not at all.

    Safe to share between threads. Every method raises StoreError, and nothing else, for what goes wrong in the store.
    """

    @property
    def url(self) -> str:
        """s3://bucket/prefix or file:///folder, without a slash at the end and without credentials."""
        ...

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes (at least 1) from byte `start` on; fewer, or none, where the object ends before. Raises NotFound."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write or replace; with `if_absent`, exactly one of all writers succeeds and the others get AlreadyExists."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """None where there is no such object."""
        ...

    def checksum(self, key: str) -> str:
        """A word that another content has another one of, as `sha256:…`: whatever the store keeps of it. Raises NotFound.

        In a bucket nothing of the object is read. The same content may get another word where it is written anew, in other parts.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix` (which may end inside a name), ordered by the key's UTF-8 bytes."""
        ...

    def upload(self, path: Path, key: str) -> None:
        """Write or replace from a file; in parallel parts where it is large."""
        ...

    def download(self, key: str, path: Path) -> None:
        """To a file that appears at `path` whole. Raises NotFound; Corrupted where the size is not the object's."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Keys that do not exist are no error."""
        ...

    def check_writable(self) -> None:
        """Write a probe, see that a second conditional write of it fails, read it, remove it."""
        ...


def check_key(key: str) -> str:
    """A key is a relative path without empty, `.` or `..` parts, so that it means the same in a bucket and in a folder."""
    if any(part in ("", ".", "..") for part in key.split("/")) or "\0" in key:
        raise ValueError(f"{key!r} is no key of a store: it must be a relative path without empty, '.' or '..' parts")
    return key


def probe(store: Store) -> None:
    """`check_writable`, for every store."""
    key = f".probe-{secrets.token_hex(8)}"
    url = f"{store.url}/{key}"
    try:
        store.put(key, b"probe", if_absent=True)
        try:
            store.put(key, b"another", if_absent=True)
        except AlreadyExists:
            pass
        else:
            raise ConditionalWritesUnsupported("a second PUT with `If-None-Match: *` replaced the object of the first", url)
        if store.get(key) != b"probe":
            raise Corrupted("what was read is not what was written", url, "Check the server or the disk.")
    except StoreError:
        # The first problem is the one to tell.
        with contextlib.suppress(StoreError):
            store.delete([key])
        raise
    store.delete([key])
