"""What a stage tells the person who watches: a small file, replaced at most once a second. Nothing reads it to decide anything."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path


class Progress:
    """`update` is cheap: call it for every batch."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.monotonic, every: float = 1.0) -> None:
        self._path = path
        self._clock = clock
        self._every = every
        self._last = float("-inf")

    @classmethod
    def from_environment(cls) -> Progress:
        path = os.environ.get("RLHF_PROGRESS")
        return cls(Path(path) if path else None)

    def update(self, done: int, total: int, unit: str, detail: str = "") -> None:
        """`done` of `total` `unit`s, for instance 120 of 600 steps; `detail` is a few words such as "loss 0.53"."""
        now = self._clock()
        if self._path is None or (now - self._last < self._every and done < total):
            return
        self._last = now
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": done, "total": total, "unit": unit, "detail": detail}))
        temporary.replace(self._path)
