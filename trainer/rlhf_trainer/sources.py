"""Models and data sets from outside the run's store: hub, S3, a mounted folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_api.data import Source
from rlhf_api.file_urls import file_path
from rlhf_api.model import ModelRef
from rlhf_api.mounts import hub_token_variable
from rlhf_api.storage import Storage
from rlhf_store import Store, open_store

from .errors import ConfigurationProblem, Transient

#: What of a model's repository is read; pickled weights never are.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.md")
CODE_FILES = ("*.py",)
DATA_SUFFIXES = (".parquet", ".jsonl", ".json")


def model_folder(model: ModelRef, scratch: Path, storage: Storage) -> Path:
    """A local folder with the model's files. Raises ConfigurationProblem when it does not exist or cannot be read."""
    scheme, _, rest = model.uri.partition("://")
    if scheme == "file":
        folder = file_path(model.uri)
        if not (folder / "config.json").is_file():
            raise ConfigurationProblem(
                f"{model.uri} is no model: there is no readable {folder}/config.json. Mount the volume, or correct the path."
            )
        return folder
    if scheme == "hf":
        patterns = list(MODEL_FILES + (CODE_FILES if model.trust_remote_code else ()))
        return Path(_from_hub(rest, "model", model, patterns))
    target = scratch / hashlib.sha256(model.uri.encode()).hexdigest()[:16]
    return _from_bucket(model.uri, target, storage)


def read_rows(source: Source, scratch: Path, storage: Storage) -> list[dict[str, Any]]:
    """All rows of a data set, in its order. Raises ConfigurationProblem when it is missing, empty or not Parquet or JSON lines."""
    scheme, _, rest = source.uri.partition("://")
    if scheme == "hf":
        folder = Path(_from_hub(rest, "dataset", source, None))
        rows = _rows_of_hub_snapshot(folder, source)
    elif scheme == "file":
        rows = list(_rows_of_path(file_path(source.uri), source))
    else:
        target = scratch / hashlib.sha256(source.uri.encode()).hexdigest()[:16]
        rows = list(_rows_of_path(_from_bucket(source.uri, target, storage), source))
    if not rows:
        raise ConfigurationProblem(f"{source.uri} (split {source.split}) has no rows.")
    return rows


def resolve_revision(target: ModelRef | Source, scratch: Path, storage: Storage) -> str:
    """The commit of a hub repository; for files, the first 40 hex digits of the SHA-256 over their names and contents."""
    scheme, _, rest = target.uri.partition("://")
    if scheme == "hf":
        return _hub_commit(rest, "model" if isinstance(target, ModelRef) else "dataset", target)
    if isinstance(target, ModelRef):
        root = model_folder(target, scratch, storage)
    elif scheme == "file":
        root = file_path(target.uri)
    else:
        root = _from_bucket(target.uri, scratch / hashlib.sha256(target.uri.encode()).hexdigest()[:16], storage)
    digest = hashlib.sha256()
    for path in _files(root, target.uri):
        digest.update(f"{path.relative_to(root) if root.is_dir() else path.name}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:40]


def _rows_of_path(path: Path, source: Source) -> Iterator[dict[str, Any]]:
    files = [p for p in _files(path, source.uri) if p.suffix in DATA_SUFFIXES]
    by_split = [p for p in files if p.stem == source.split or p.stem.startswith(f"{source.split}-")]
    files = by_split or files
    if not files:
        raise ConfigurationProblem(f"{source.uri} holds no {', '.join(DATA_SUFFIXES)} file.")
    for file in files:
        yield from _rows_of_file(file, source.uri)


def _rows_of_file(file: Path, uri: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix == ".parquet":
        try:
            yield from pq.read_table(file).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigurationProblem(f"{uri}: {file.name} is no readable Parquet file: {str(error).splitlines()[0]}") from error
        return
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationProblem(f"{uri}: {file.name} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationProblem(
                f"{uri}: line {number} of {file.name} is no JSON: {error}. One object a line is read, in UTF-8."
            ) from error
        if not isinstance(row, dict):
            raise ConfigurationProblem(f"{uri}: line {number} of {file.name} is no object. One object a line is read.")
        yield row


def _files(path: Path, uri: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")) if path.is_dir() else []
    if not files:
        raise ConfigurationProblem(f"{uri} does not exist or is empty. Mount the volume, or correct the path.")
    return files


def _from_bucket(uri: str, target: Path, storage: Storage) -> Path:
    """s3:// beside the run's own store: the same endpoint and credentials."""
    store: Store = open_store(storage.model_copy(update={"url": uri.rstrip("/")}))
    keys = [info.key for info in store.list()]
    if not keys:
        bucket_url, _, name = uri.rpartition("/")
        parent = open_store(storage.model_copy(update={"url": bucket_url}))
        if parent.head(name) is None:
            raise ConfigurationProblem(f"{uri} does not exist or is empty.")
        parent.download(name, target / name)
        return target / name
    for key in keys:
        if not (target / key).exists():
            store.download(key, target / key)
    return target


def _from_hub(name: str, kind: str, target: ModelRef | Source, patterns: list[str] | None) -> str:
    from huggingface_hub import snapshot_download

    with _hub_errors(name, target.revision):
        return str(
            snapshot_download(name, repo_type=kind, revision=target.revision, allow_patterns=patterns, token=hub_token(target))
        )


def _hub_commit(name: str, kind: str, target: ModelRef | Source) -> str:
    from huggingface_hub import HfApi

    with _hub_errors(name, target.revision):
        return str(HfApi(token=hub_token(target)).repo_info(name, repo_type=kind, revision=target.revision).sha)


def hub_token(target: ModelRef | Source) -> str | None:
    """Of the Secret that the source names, as the pod has it; else HF_TOKEN, which is all that a local run knows."""
    if target.credentials is not None:
        own = os.environ.get(hub_token_variable(target.credentials.secret_ref))
        if own:
            return own
    return os.environ.get("HF_TOKEN") or None


def _rows_of_hub_snapshot(folder: Path, source: Source) -> list[dict[str, Any]]:
    from datasets import load_dataset

    return [dict(row) for row in load_dataset(str(folder), split=source.split)]


class _hub_errors:  # noqa: N801 (a context manager)
    """The hub's errors in our words."""

    def __init__(self, name: str, revision: str | None) -> None:
        self._what = f"hf://{name}" + (f" at {revision}" if revision else "")

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        if isinstance(error, GatedRepoError):
            raise ConfigurationProblem(
                f"{self._what} is gated. Accept its terms and set credentials.secretRef with an HF_TOKEN."
            ) from error
        if isinstance(error, RevisionNotFoundError):
            raise ConfigurationProblem(f"{self._what}: there is no such revision.") from error
        if isinstance(error, RepositoryNotFoundError):
            raise ConfigurationProblem(f"{self._what} does not exist, or the token may not see it.") from error
        if isinstance(error, HfHubHTTPError | LocalEntryNotFoundError | ConnectionError | TimeoutError):
            raise Transient(f"The hub cannot be reached for {self._what}: {error}", reason="HubUnavailable") from error
