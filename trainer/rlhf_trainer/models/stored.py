"""The safetensors files of a model, by their headers alone: nothing of the weights is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rlhf_trainer.runtime.errors import ConfigurationProblem

Shape = tuple[int, ...]

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class FileVersion:
    """A file that has changed is another: what was read of it is looked up by this."""

    path: Path
    size: int
    modified: int
    """ns."""

    @classmethod
    def of(cls, path: Path) -> FileVersion:
        """Raises OSError."""
        found = path.stat()
        return cls(path, found.st_size, found.st_mtime_ns)


def stored_shapes(folder: Path, model: str) -> dict[str, Shape]:
    """By the names of tensors. Raises ConfigurationProblem, with `model` as its name, where a file is missing or not whole."""
    files = sorted(folder.glob("*.safetensors"))
    if missing := sorted(_indexed(folder, model) - {file.name for file in files}):
        raise ConfigurationProblem(f"{model} lacks {', '.join(missing)}, which {_INDEX} names. Copy it anew.")
    if not files:
        raise ConfigurationProblem(f"{model} has no safetensors weights. Pickled weights are never loaded; convert them.")
    found: dict[str, Shape] = {}
    for file in files:
        try:
            found |= _header(FileVersion.of(file))
        except (SafetensorError, OSError) as error:
            raise ConfigurationProblem(f"{model}: {file.name} is no safetensors file: {error}. Copy it anew.") from error
    return found


def require_shapes(stored: Mapping[str, Shape], expected: Mapping[str, Shape], model: str) -> None:
    """All of `expected` is there, in its shape. Raises ConfigurationProblem, with `model` as its name."""
    if missing := sorted(expected.keys() - stored.keys()):
        raise ConfigurationProblem(
            f"{model} has no weights for {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}: they would be random. Name a "
            "trained model whose files are all there."
        )
    for name in sorted(expected):
        if stored[name] != expected[name]:
            raise ConfigurationProblem(
                f"{model}: {name} is {list(stored[name])} in its files, and {list(expected[name])} by its config.json. "
                "Name a folder whose files belong together."
            )


@lru_cache(maxsize=1024)
def _header(file: FileVersion) -> Mapping[str, Shape]:
    """Several checks ask for the same."""
    with safe_open(str(file.path), "np") as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - no mapping


def _indexed(folder: Path, model: str) -> set[str]:
    """Names of files, where the weights are in several."""
    if not (folder / _INDEX).exists():
        return set()
    try:
        return set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigurationProblem(f"{model}: {_INDEX} is no index of weights: {error}. Copy it anew.") from error
