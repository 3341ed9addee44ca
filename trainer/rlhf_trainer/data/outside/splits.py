"""Which files of a folder are a split: those that are called so, or lie in a folder of that name, and all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rlhf_trainer.runtime.errors import ConfigurationProblem

#: How the hub numbers the files of a split; it once put a hash behind.
_SHARD = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?$")
#: What people call their splits. A file of another one is not taken for the one that was asked for.
_SPLITS = frozenset({"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation"})
_TOLD = 8


def split_files(root: Path, files: Sequence[Path], uri: str, split: str) -> list[Path]:
    """Of `files` in `root`, those of the split. A uri that names a file names what it wants, and so does a single file's folder.

    Raises ConfigurationProblem where there is none, where some are missing, or where several folders have one.
    """
    if root.is_file():
        return list(files)
    found = [file for file in files if _is_of(root, file, split)]
    if not found and len(files) == 1 and not any(_is_named(root, files[0], other) for other in _SPLITS):
        found = list(files)
    if not found:
        stems = sorted({file.stem for file in files})
        raise ConfigurationProblem(
            f"{uri} has no split {split}: no file of it is called {split} or {split}-…, and no folder {split}. "
            f"Set split; there are {', '.join(stems[:_TOLD])}{', …' if len(stems) > _TOLD else ''}."
        )
    folders = sorted({str(_folder(root, file, split)) for file in found})
    if len(folders) > 1:
        raise ConfigurationProblem(
            f"{uri} has a split {split} in several folders ({', '.join(folders[:_TOLD])}{', …' if len(folders) > _TOLD else ''}). "
            "Name one of them in the uri."
        )
    _require_all_shards(found, uri)
    return found


def _is_of(root: Path, file: Path, split: str) -> bool:
    return file.stem == split or file.stem.startswith(f"{split}-") or split in file.relative_to(root).parent.parts


def _is_named(root: Path, file: Path, split: str) -> bool:
    """Also where more is said of the split: test_sft."""
    return _is_of(root, file, split) or file.stem.startswith(f"{split}_")


def _folder(root: Path, file: Path, split: str) -> Path:
    """Where the split lies: its own folder is part of its name."""
    parts = file.relative_to(root).parent.parts
    return Path(*parts[: parts.index(split)]) if split in parts else Path(*parts)


def _require_all_shards(files: Sequence[Path], uri: str) -> None:
    seen: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if shard := _SHARD.match(file.stem):
            seen.setdefault((file.parent, shard["stem"], int(shard["count"])), set()).add(int(shard["number"]))
    for (_, stem, count), numbers in seen.items():
        missing = sorted(set(range(count)) - numbers)
        if missing:
            raise ConfigurationProblem(
                f"{uri} is not complete: of the {count} files {stem}-…-of-{count:05d} number {missing[0]:05d} is missing"
                f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}. Fetch it again."
            )
