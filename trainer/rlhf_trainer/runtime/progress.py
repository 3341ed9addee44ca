"""What a stage tells the person who watches: a small file, replaced at most once a second, and a line of its log now and then.

Nothing reads either to decide anything.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class Progress:
    """`update` is cheap: call it for every batch. `say` gets the first one, the last, and one every `say_every` seconds between."""

    def __init__(
        self,
        path: Path | None,
        say: Callable[[str], object] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = 1.0,
        say_every: float = 15.0,
    ) -> None:
        self._path = path
        self._say = say
        self._clock = clock
        self._every, self._say_every = every, say_every
        self._written = self._said = float("-inf")

    @classmethod
    def from_environment(cls, say: Callable[[str], object]) -> Progress:
        path = os.environ.get("RLHF_PROGRESS")
        return cls(Path(path) if path else None, say)

    def update(self, done: int, total: int, unit: str, detail: str = "") -> None:
        """`done` of `total` `unit`s, for instance 120 of 600 steps; `detail` is a few words such as "loss 0.53"."""
        now = self._clock()
        over = done >= total
        if self._path is not None and (over or now - self._written >= self._every):
            self._written = now
            # A disk that is full is told of by whoever has to write to it.
            with suppress(OSError):
                temporary = self._path.with_suffix(".tmp")
                temporary.write_text(json.dumps({"done": done, "total": total, "unit": unit, "detail": detail}))
                temporary.replace(self._path)
        if self._say is not None and (over or now - self._said >= self._say_every):
            self._said = now
            self._say(f"{done} of {total} {unit}" + (f", {detail}" if detail else ""))
