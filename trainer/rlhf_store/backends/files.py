"""file://: a folder of this machine, or of a network file system that has hard links."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rlhf_api.conventions.file_urls import file_path
from rlhf_store.errors import AccessDenied, AlreadyExists, ConditionalWritesUnsupported, Corrupted, NotFound
from rlhf_store.file_errors import local_errors, translate_local
from rlhf_store.store import ObjectInfo, check_key, probe

#: Files that are being written; what a killed writer left here is no object.
_INCOMING = ".incoming"
#: A writer that has not touched its file for so long was killed.
_ABANDONED_SECONDS = 24 * 3600.0
#: Objects are never changed in place, only replaced: several names may then share one inode (`download`).
_MODE = 0o444


class FileStore:
    """Objects are files under one folder. They are written aside, flushed to the disk, then linked or renamed into place."""

    def __init__(self, url: str) -> None:
        self._root = file_path(url)
        self._url = url.rstrip("/")

    @property
    def url(self) -> str:
        return self._url

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._reading(key):
            return path.read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        path = self._path(key)
        with self._reading(key), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._write(key, lambda file: file.write(data), if_absent=if_absent)

    def head(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        try:
            with self._reading(key):
                return ObjectInfo(key, path.stat().st_size) if path.is_file() else None
        except NotFound:
            return None

    def checksum(self, key: str) -> str:
        """Of its bytes, which are read: a file system keeps nothing of them."""
        path = self._path(key)
        with self._reading(key), path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        folder = self._root / prefix.rpartition("/")[0]
        found = []
        with self._reading(prefix):
            for base, folders, names in os.walk(folder, onerror=_raise_unless_absent):
                if Path(base) == self._root and _INCOMING in folders:
                    folders.remove(_INCOMING)
                for name in names:
                    path = Path(base, name)
                    key = path.relative_to(self._root).as_posix()
                    if key.startswith(prefix):
                        found.append((key, path))
            found.sort(key=lambda item: item[0].encode())
        for key, path in found:
            try:
                size = path.stat().st_size
            except FileNotFoundError:  # Deleted since.
                continue
            yield ObjectInfo(key, size)

    def upload(self, path: Path, key: str) -> None:
        with path.open("rb") as source:
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 20), if_absent=False)

    def download(self, key: str, path: Path) -> None:
        """A hard link where both lie on one file system: treat what you downloaded as read-only."""
        source = self._path(key)
        with self._reading(key):
            size = source.stat().st_size
            if not source.is_file():
                raise NotFound("there is no such object", self._object_url(key))
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            with local_errors(str(path)):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, part)
                except FileNotFoundError:
                    raise NotFound("the object was deleted while it was read", self._object_url(key)) from None
                except OSError:
                    shutil.copyfile(source, part)
                if part.stat().st_size != size:
                    raise Corrupted(f"read {part.stat().st_size} of {size} bytes", self._object_url(key))
                part.replace(path)
                # rename() leaves both names where they are one inode already.
                part.unlink(missing_ok=True)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            path = self._path(key)
            with local_errors(self._object_url(key)):
                path.unlink(missing_ok=True)
                self._remove_empty_folders(path.parent)

    def check_writable(self) -> None:
        probe(self)
        self._sweep(time.time())

    def _write(self, key: str, fill: Callable[[IO[bytes]], object], *, if_absent: bool) -> None:
        path, url = self._path(key), self._object_url(key)
        incoming = self._root / _INCOMING
        part = incoming / secrets.token_hex(8)
        with local_errors(url):
            _make_folder(incoming)
            try:
                with part.open("xb") as file:
                    fill(file)
                    file.flush()
                    os.fchmod(file.fileno(), _MODE)
                    os.fsync(file.fileno())
                self._place(part, path, url, if_absent=if_absent)
            finally:
                part.unlink(missing_ok=True)

    def _place(self, part: Path, path: Path, url: str, *, if_absent: bool) -> None:
        while True:
            try:
                _make_folder(path.parent)
                if if_absent:
                    os.link(part, path)
                else:
                    part.replace(path)
                break
            except FileNotFoundError:
                # A delete() removed the folder, which was empty, in between.
                if not part.exists():
                    raise
            except FileExistsError:
                raise AlreadyExists("an object is there already", url) from None
            except OSError as error:
                if if_absent and error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise ConditionalWritesUnsupported("this file system has no hard links", url) from error
                raise
        _sync_folder(path.parent)

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _sweep(self, now: float) -> None:
        """Remove what killed writers left."""
        for path in (self._root / _INCOMING).iterdir():
            with suppress(FileNotFoundError):
                if now - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _object_url(self, key: str) -> str:
        return f"{self._url}/{key}"

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        url = self._object_url(key)
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("there is no such object", url) from error
        except PermissionError as error:
            raise AccessDenied("this user may not read it", url, "Give this user the right to read it.") from error
        except OSError as error:
            raise translate_local(error, url) from error


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _make_folder(folder: Path) -> None:
    """mkdir -p, with the new names on the disk before anything is put under them."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for child in reversed(missing):
        child.mkdir(exist_ok=True)
        _sync_folder(child.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
