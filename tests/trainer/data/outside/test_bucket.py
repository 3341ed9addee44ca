"""The revision of what lies in a bucket: known without its bytes, and kept to by whoever downloads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.resource.data import PromptSource
from rlhf_api.resource.model import ModelRef
from rlhf_api.resource.storage import Storage
from rlhf_store import Store, open_store
from rlhf_trainer.data.sources import fetch_model, open_rows, resolve_revision
from rlhf_trainer.runtime.errors import ConfigurationProblem
from support.s3 import S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def store(s3_storage: Storage) -> Store:
    """With a model and a data set."""
    store = open_store(s3_storage)
    store.put("model/config.json", b"{}")
    store.put("model/model.safetensors", b"weights")
    store.put("data/train.jsonl", b'{"n": 1}\n')
    return store


@pytest.fixture
def model(s3_storage: Storage) -> ModelRef:
    return ModelRef(uri=f"{s3_storage.url}/model")


def pinned(model: ModelRef, storage: Storage) -> ModelRef:
    return model.model_copy(update={"revision": resolve_revision(model, storage)})


def reads(server: S3Server, storage: Storage) -> list[str]:
    """Names of the objects that were read, one for each time."""
    return [r.key.rpartition("/")[2] for r in server.requests(storage) if r.operation == "GetObject"]


def test_nothing_is_read_to_know_it(store: Store, model: ModelRef, s3_server: S3Server, s3_storage: Storage) -> None:
    revision = resolve_revision(model, s3_storage)
    assert revision == resolve_revision(model, s3_storage)
    assert revision.startswith("objects-")
    assert resolve_revision(PromptSource(uri=f"{s3_storage.url}/data/train.jsonl"), s3_storage).startswith("objects-")
    assert reads(s3_server, s3_storage) == []


@pytest.mark.parametrize(
    ("key", "content"),
    [("model/model.safetensors", b"another"), ("model/model.safetensors", b"longer than it was"), ("model/added.json", b"{}")],
)
def test_other_contents_and_other_names_have_another(
    store: Store, model: ModelRef, s3_storage: Storage, key: str, content: bytes
) -> None:
    before = resolve_revision(model, s3_storage)
    store.put(key, content)
    assert resolve_revision(model, s3_storage) != before


def test_a_copy_elsewhere_and_the_same_written_again_have_the_same(store: Store, model: ModelRef, s3_storage: Storage) -> None:
    before = resolve_revision(model, s3_storage)
    for name in ("config.json", "model.safetensors"):
        for folder in ("model", "copy"):
            store.put(f"{folder}/{name}", store.get(f"model/{name}"))
    assert resolve_revision(model, s3_storage) == before
    assert resolve_revision(ModelRef(uri=f"{s3_storage.url}/copy"), s3_storage) == before


def test_a_stage_reads_weights_once_however_often_it_asks(
    store: Store, model: ModelRef, s3_server: S3Server, s3_storage: Storage, tmp_path: Path
) -> None:
    model = pinned(model, s3_storage)
    for _ in range(3):
        folder = fetch_model(model, tmp_path / "stage", s3_storage)
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(reads(s3_server, s3_storage)) == ["config.json", "model.safetensors"]


def test_what_changed_is_refused_before_it_is_downloaded(
    store: Store, model: ModelRef, s3_server: S3Server, s3_storage: Storage, tmp_path: Path
) -> None:
    model = pinned(model, s3_storage)
    store.put("model/model.safetensors", b"another")
    with pytest.raises(ConfigurationProblem, match=f"{model.uri} has other files than when this run began"):
        fetch_model(model, tmp_path / "stage", s3_storage)
    assert reads(s3_server, s3_storage) == []


@pytest.mark.parametrize("name", ["model", "data", "data/train.jsonl"])
def test_a_run_that_an_older_version_began_goes_on(store: Store, s3_storage: Storage, tmp_path: Path, name: str) -> None:
    """It recorded the digest of what it had downloaded, which is that of the same files in a folder."""
    local = tmp_path / name
    for info in store.list(name):
        store.download(info.key, tmp_path / info.key)

    def fetch(scratch: str) -> None:
        uri = f"{s3_storage.url}/{name}"
        if name == "model":
            revision = resolve_revision(ModelRef(uri=f"file://{local}"), s3_storage)
            fetch_model(ModelRef(uri=uri, revision=revision), tmp_path / scratch, s3_storage)
        else:
            revision = resolve_revision(PromptSource(uri=f"file://{local}"), s3_storage)
            open_rows(PromptSource(uri=uri, revision=revision), tmp_path / scratch, s3_storage)
        assert len(revision) == 40

    fetch("first")
    for file in [local] if local.is_file() else list(local.iterdir()):
        file.write_bytes(b'{"n": 2}\n')
    with pytest.raises(ConfigurationProblem, match="has other files than when this run began"):
        fetch("second")
