"""Golden files: a change of what they hold must be meant. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path


def updating() -> bool:
    return bool(os.environ.get("UPDATE_GOLDEN"))


def assert_golden(text: str, path: Path) -> None:
    """The file at `path` holds exactly `text`."""
    if updating():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden file {path.name}; run the test with UPDATE_GOLDEN=1"
    assert text == path.read_text(encoding="utf-8"), f"{path} has changed; where that is meant, run the test with UPDATE_GOLDEN=1"
