"""Progress for a display, and a line of the log now and then."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_trainer.runtime.progress import Progress


def test_progress_is_replaced_as_a_whole_and_at_most_once_a_second(tmp_path: Path) -> None:
    now = iter([0.0, 0.5, 1.5, 1.6])
    file = tmp_path / "progress.json"
    progress = Progress(file, clock=lambda: next(now))
    seen = []
    for done in (1, 2, 3, 4):
        progress.update(done, 4, "steps", "loss 0.5")
        seen.append(json.loads(file.read_text())["done"])
    assert seen == [1, 1, 3, 4]
    assert json.loads(file.read_text()) == {"done": 4, "total": 4, "unit": "steps", "detail": "loss 0.5"}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_progress_says_the_first_the_last_and_a_line_now_and_then() -> None:
    now = iter([0.0, 1.0, 20.0, 21.0, 22.0])
    said: list[str] = []
    progress = Progress(None, said.append, clock=lambda: next(now))
    for done in (1, 2, 3, 4, 5):
        progress.update(done, 5, "steps", f"loss 0.{done}")
    assert said == ["1 of 5 steps, loss 0.1", "3 of 5 steps, loss 0.3", "5 of 5 steps, loss 0.5"]
