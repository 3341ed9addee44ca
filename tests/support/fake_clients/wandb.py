"""As much of wandb as is asked of it, with its manners: a step that is not behind the last one is dropped. Kept in $WANDB_DIR."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Settings:
    def __init__(self, **fields: Any) -> None:
        self.fields = fields


class Run:
    def __init__(self, file: Path, start: dict[str, Any]) -> None:
        self._file = file
        self._kept: dict[str, Any] = (
            json.loads(file.read_text()) if file.exists() else {"init": start, "history": [], "finished": 0}
        )
        self.step = self._kept["history"][-1][0] + 1 if self._kept["history"] else 0

    def log(self, values: dict[str, float], step: int) -> None:
        if step >= self.step:
            self._kept["history"].append([step, values])
            self.step = step + 1

    def finish(self) -> None:
        self._kept["finished"] += 1
        self._file.write_text(json.dumps(self._kept))


def init(*, id: str, resume: str, settings: Settings, **fields: Any) -> Run:  # noqa: A002 (theirs)
    assert resume == "allow"
    if error := os.environ.get("FAKE_WANDB_ERROR"):
        raise ConnectionError(error)
    return Run(Path(os.environ["WANDB_DIR"]) / f"{id}.json", fields)
