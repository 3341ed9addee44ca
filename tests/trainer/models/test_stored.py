"""Weights that are not whole are known by the headers of their files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rlhf_trainer.models.stored import stored_shapes
from rlhf_trainer.runtime.errors import ConfigurationProblem

INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(world: Path, tmp_path: Path) -> Path:
    """In two files, with an index."""
    folder = shutil.copytree(world / "model", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    place = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(sorted(weights))}
    for file in set(place.values()):
        save_file({name: weights[name] for name in weights if place[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def cut(folder: Path, size: int) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:size])


def remove(folder: Path, names: str) -> None:
    for file in folder.glob(names):
        file.unlink()


def test_shapes_are_those_of_all_files(model: Path, world: Path) -> None:
    whole = load_file(world / "model" / "model.safetensors")
    assert stored_shapes(model, "m") == {name: tuple(tensor.shape) for name, tensor in whole.items()}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: cut(folder, 0), r"^m: model-00002-of-00002\.safetensors is no safetensors file: .* Copy it anew"),
        (lambda folder: cut(folder, 100), r"model-00002-of-00002\.safetensors is no safetensors file"),
        (lambda folder: cut(folder, -1), r"model-00002-of-00002\.safetensors is no safetensors file: .* not fully covered"),
        (
            lambda folder: remove(folder, "*-00001-*"),
            r"^m lacks model-00001-of-00002\.safetensors, which model\.safetensors\.index",
        ),
        (lambda folder: remove(folder, "*.safetensors*"), r"^m has no safetensors weights"),
        (lambda folder: (folder / INDEX).write_text("{"), r"index\.json is no index of weights"),
        (lambda folder: (folder / INDEX).write_text("[]"), r"index\.json is no index of weights"),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": ["b"]}}'), r"index\.json is no index of weights"),
    ],
)
def test_what_is_missing_or_cut_off_is_named(model: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(model)
    with pytest.raises(ConfigurationProblem, match=said):
        stored_shapes(model, "m")
