"""Golden files: a change of what they hold must be meant. RLHF_WRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path


def assert_golden(text: str, path: Path) -> None:
    """The file at `path` holds exactly `text`."""
    if os.environ.get("RLHF_WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"no golden file {path.name}; run the test with RLHF_WRITE_GOLDEN=1"
    assert text == path.read_text(), f"{path.name} has changed; where that is meant, run the test with RLHF_WRITE_GOLDEN=1"
