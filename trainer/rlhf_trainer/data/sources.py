"""Models and data sets from outside the run's store: hub, S3, a mounted folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from rlhf_api.conventions.file_urls import file_path
from rlhf_api.conventions.mounts import hub_token_variable
from rlhf_api.resource.data import Source
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .files import DATA_SUFFIXES, DatasetPart, Rows, part_of
from .outside import bucket, hub
from .outside.splits import split_files

#: What of a model's repository is read; pickled weights never are.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.md")
CODE_FILES = ("*.py",)


def fetch_model(model: ModelRef, scratch: Path, storage: Storage) -> Path:
    """A local folder with the model's files. Raises ConfigurationProblem when it does not exist, cannot be read or has changed."""
    if model.uri.startswith("hf:"):
        return hub.snapshot_of(_repository(model), list(_read_of(model)))
    return _unchanged_copy(model, scratch, storage)


def fetch_without_weights(model: ModelRef, scratch: Path, storage: Storage) -> Path:
    """As `fetch_model`, with the header alone of each weights file in a hub or a bucket: kilobytes, where there are gigabytes.

    Names and shapes of tensors are found there, and whether a file is whole; tensors are not. Raises ConfigurationProblem.
    """
    if model.uri.startswith("file:"):
        return _unchanged_copy(model, scratch, storage)
    known = f"{model.uri}@{model.revision} {_read_of(model)}"
    folder = scratch / f"{_short_hash(known)}.without-weights"
    if not folder.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        incomplete = Path(mkdtemp(prefix="incomplete-", dir=scratch))
        if model.uri.startswith("hf:"):
            hub.fetch_without_weights(_repository(model), _read_of(model), incomplete)
        else:
            _objects(model, storage).download_without_weights(incomplete)
        incomplete.rename(folder)
    return folder


def open_rows(source: Source, scratch: Path, storage: Storage) -> Rows:
    """All rows of a data set, in its order.

    Raises ConfigurationProblem when it is missing, incomplete, empty, has changed since it was resolved, or is not Parquet or JSON
    lines.
    """
    if source.uri.startswith("hf:"):
        rows = Rows([_split_of_hub_snapshot(hub.snapshot_of(_repository(source), None), source)])
    else:
        path = _unchanged_copy(source, scratch, storage)
        rows = Rows([part_of(file, source.uri) for file in _data_files(path, source)])
    if not rows.head(1):
        raise ConfigurationProblem(f"{_told(source)} has no rows.")
    return rows


def resolve_revision(target: ModelRef | Source, storage: Storage) -> str:
    """The commit of a hub repository; of objects in a bucket, a digest over names and checksums; of files in a mounted folder, the
    first 40 hex digits of the SHA-256 over names and contents (ADR 0021).
    """
    if target.uri.startswith("hf:"):
        return hub.commit_of(_repository(target))
    if target.uri.startswith("s3:"):
        return _objects(target, storage).revision()
    return _content_revision(_mounted(target), target.uri)


def _unchanged_copy(target: ModelRef | Source, scratch: Path, storage: Storage) -> Path:
    """With the files that preflight saw: nobody keeps a folder or a bucket from being written to while a run goes on."""
    # A stage asks for the same model several times, and models are large.
    seen = scratch / f"{_short_hash(f'{target.uri}@{target.revision}')}.unchanged"
    if target.revision is None or seen.exists():
        return _copy(target, scratch, storage)
    if bucket.is_of_objects(target.revision):
        # Before gigabytes are downloaded in vain, and once more, for they may be replaced meanwhile.
        _require_unchanged(target, _objects(target, storage).revision())
        root = _copy(target, scratch, storage)
        _require_unchanged(target, _objects(target, storage).revision())
    else:
        root = _copy(target, scratch, storage)
        _require_unchanged(target, _content_revision(root, target.uri))
    scratch.mkdir(parents=True, exist_ok=True)
    seen.touch()
    return root


def _require_unchanged(target: ModelRef | Source, found: str) -> None:
    if found != target.revision:
        raise ConfigurationProblem(
            f"{target.uri} has other files than when this run began: they were resolved to {target.revision}, and are {found} "
            "now. Put the former ones back; or delete the run and begin it again, with what it finds in the store."
        )


def _copy(target: ModelRef | Source, scratch: Path, storage: Storage) -> Path:
    """A mounted folder or file itself, or a download."""
    if target.uri.startswith("s3:"):
        return _objects(target, storage).download(scratch / _short_hash(target.uri))
    return _mounted(target)


def _mounted(target: ModelRef | Source) -> Path:
    """What a file:// uri names."""
    path = file_path(target.uri)
    if isinstance(target, ModelRef) and not (path / "config.json").is_file():
        raise ConfigurationProblem(
            f"{target.uri} is no model: there is no readable {path}/config.json. Mount the volume, or correct the path."
        )
    return path


def _objects(target: ModelRef | Source, storage: Storage) -> bucket.Objects:
    return bucket.objects_of(target.uri, storage, lambda key: not isinstance(target, ModelRef) or _is_read_of(target, key))


def _content_revision(root: Path, uri: str) -> str:
    digest = hashlib.sha256()
    for path in _files(root, uri):
        digest.update(f"{path.relative_to(root) if root.is_dir() else path.name}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:40]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data_files(path: Path, source: Source) -> list[Path]:
    files = [p for p in _files(path, source.uri) if p.suffix in DATA_SUFFIXES]
    if not files:
        raise ConfigurationProblem(f"{source.uri} holds no {', '.join(DATA_SUFFIXES)} file.")
    return split_files(path, files, source.uri, source.split)


def _files(path: Path, uri: str) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")) if path.is_dir() else []
    if not files:
        raise ConfigurationProblem(f"{uri} does not exist or is empty. Mount the volume, or correct the path.")
    return files


def _read_of(model: ModelRef) -> tuple[str, ...]:
    """Names of files, as patterns."""
    return MODEL_FILES + (CODE_FILES if model.trust_remote_code else ())


def _is_read_of(model: ModelRef, path: str) -> bool:
    return any(PurePosixPath(path).match(pattern) for pattern in _read_of(model))


def _repository(target: ModelRef | Source) -> hub.Repository:
    kind = "model" if isinstance(target, ModelRef) else "dataset"
    return hub.Repository(target.uri.removeprefix("hf://"), kind, target.revision, hub_token(target))


def hub_token(target: ModelRef | Source) -> str | None:
    """Of the Secret that the source names, as the pod has it; else HF_TOKEN, which is all that a local run knows."""
    if target.credentials is not None:
        own = os.environ.get(hub_token_variable(target.credentials.secret_ref))
        if own:
            return own
    return os.environ.get("HF_TOKEN") or None


def _split_of_hub_snapshot(folder: Path, source: Source) -> DatasetPart:
    from datasets import get_dataset_config_names, load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetsError

    try:
        loaded = load_dataset(str(folder), source.config, split=source.split)
        files = (load_dataset_builder(str(folder), source.config).config.data_files or {}).get(source.split, [])
        return DatasetPart(loaded, [Path(file) for file in files])
    except (ValueError, FileNotFoundError, DatasetsError) as error:
        # Of an unknown split among others, which it lists; of rows that are none, which only the cause names.
        said = "; ".join(str(e).splitlines()[0] for e in (error, error.__cause__) if e is not None and str(e))
        if "Config name is missing" in said:
            several = ", ".join(get_dataset_config_names(str(folder)))
            raise ConfigurationProblem(f"{source.uri} has several configurations: {several}. Set config to one of them.") from error
        raise ConfigurationProblem(f"{_told(source)} cannot be read: {said}") from error


def _told(source: Source) -> str:
    config = "" if source.config is None else f"config {source.config}, "
    return f"{source.uri} ({config}split {source.split})"
