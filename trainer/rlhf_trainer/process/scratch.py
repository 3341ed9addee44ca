"""Where a stage works: a folder of its own, in the one that it was given, which others may share and which may outlive it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """Nothing is removed that was not made here."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def make(self) -> Path:
        """In $RLHF_SCRATCH, or where temporary files are. Raises OSError."""
        parent = Path(os.environ.get("RLHF_SCRATCH") or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="stage-", dir=parent))
        return self._folder

    def clear(self) -> None:
        """It is gone, with everything in it; what cannot be removed stays."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
