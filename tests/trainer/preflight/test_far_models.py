"""preflight of models in a bucket and in a hub: all that it checks it knows from small files and headers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PreflightWork, StageResult
from rlhf_store import open_store
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages import preflight
from support.hub import COMMIT, hub_with
from support.proxy import counts_answers
from support.s3 import S3Server
from support.stages import config_of, context_of, spec_of_world

BEHIND_THE_HEADER = 8_000_000
"""Bytes of weights that nobody needs to look at."""


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    """The world's, with a weights file of 8 MB and with a card."""
    folder = shutil.copytree(world / "model", tmp_path / "model")
    weights = load_file(folder / "model.safetensors") | {"unused": torch.ones(BEHIND_THE_HEADER, dtype=torch.uint8)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text("---\nbase_model: owner/base\n---\n")
    return folder


def run(world: Path, uri: str, storage: Storage, scratch: Path, **changes: Any) -> StageResult:
    spec = spec_of_world(world, storage=storage.to_wire(), policy={"model": {"uri": uri}, "dtype": "float32"}, **changes)
    return preflight.run(context_of(config_of(PreflightWork(spec=spec.to_wire()), storage, iteration=None), scratch))


def size(folder: Path) -> int:
    """Of all but the weights."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".safetensors")


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


@pytest.mark.s3
def test_of_a_model_in_a_bucket_kilobytes_are_read(
    world: Path, model: Path, s3_server: S3Server, s3_storage: Storage, tmp_path: Path
) -> None:
    store = open_store(s3_storage)
    for path in model.iterdir():
        store.upload(path, f"model/{path.name}")
    with counts_answers(s3_server.port) as proxy:
        result = run(world, f"{s3_storage.url}/model", s3_storage.model_copy(update={"endpoint_url": proxy.url}), tmp_path / "s")
    assert result.resolved["policy.model"].startswith("objects-")
    assert size(model) < proxy.sent < 100_000
    assert on_disk(tmp_path / "s" / "inputs") < 100_000
    read = [r for r in s3_server.requests(s3_storage) if r.operation == "GetObject" and r.key.endswith("/model.safetensors")]
    assert len(read) == 2, "its length and its header"


def test_of_a_model_in_a_hub_no_weights_are_requested(
    world: Path, model: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hub_with(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = run(world, "hf://owner/name", storage, tmp_path / "s")
    assert result.resolved["policy.model"] == COMMIT
    assert 0 < hub.sent["model.safetensors"] < 10_000
    assert on_disk(tmp_path / "s" / "inputs") + on_disk(tmp_path / "cache") < 150_000


@pytest.mark.s3
def test_what_is_wrong_with_weights_is_known_from_their_headers(
    world: Path, model: Path, s3_storage: Storage, tmp_path: Path
) -> None:
    """Of a file that was cut off, and of one that is no weights file; told once, whatever many checks ask."""
    store = open_store(s3_storage)
    for path in model.iterdir():
        store.upload(path, f"model/{path.name}")
    whole = (model / "model.safetensors").read_bytes()
    for data in (whole[:-1], b"version https://git-lfs.github.com/spec/v1\n"):
        store.put("model/model.safetensors", data)
        with pytest.raises(ConfigurationProblem, match=r"model\.safetensors is no safetensors file: .*Copy it anew") as raised:
            run(world, f"{s3_storage.url}/model", s3_storage, tmp_path / str(len(data)))
        assert str(raised.value).count("is no safetensors file") == 1
