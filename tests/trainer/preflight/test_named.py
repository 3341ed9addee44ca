"""What preflight says of data, by the names that lead a person to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf_api.resource.storage import Storage
from rlhf_trainer.quickstart.world import CHAT_TEMPLATE
from support.preflights import problems, run, uri

GOOD = {"prompt": "sort: lion moon", "response": "lion moon"}


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def demonstrations(folder: Path) -> dict[str, Any]:
    return {"data": [{"name": "answers", **uri(folder), "maxUnusableRows": 0.4}]}


def test_a_row_of_a_folder_is_named_with_its_file(world: Path, storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    write(folder, "train-a.jsonl", [GOOD] * 3)
    write(folder, "train-b.jsonl", [GOOD, {**GOOD, "response": None}])
    sft = demonstrations(folder)
    [warning] = run(world, storage, tmp_path, sft=sft).warnings
    assert warning.startswith(f"file://{folder}: 1 of 5 rows cannot be used (1, the first of them row 2 of train-b.jsonl: ")
    endless = CHAT_TEMPLATE.replace(" <|end|>", "")
    told = problems(
        world,
        storage,
        tmp_path,
        sft=sft,
        policy={"model": uri(world / "model"), "dtype": "float32", "chatTemplate": {"inline": endless}},
    )
    assert f"file://{folder}: row 1 of train-a.jsonl: " in told


def test_columns_that_nobody_reads_are_named_once_a_source(world: Path, storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "answers"
    write(folder, "a.jsonl", [{**GOOD, "source": "wiki", "id": number} for number in range(4)])
    assert run(world, storage, tmp_path, sft=demonstrations(folder)).warnings == [
        f"file://{folder}: columns not read: 'id', 'source'."
    ]
