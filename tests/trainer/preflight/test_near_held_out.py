"""What asks nearly the same as a held-out prompt is counted in all of a run's data, and refused above a share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.storage import Storage
from support.preflights import knowing, problems, run, uri

WORDS = 10


@pytest.fixture(scope="module")
def world(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a tokenizer that knows the words below."""
    return knowing(world, tmp_path_factory.mktemp("knowing") / "world", r"q\d+w\d+|changed")


def text(number: int, **others: str) -> str:
    """An exercise with ten words of its own."""
    return f"sort: {' '.join(others.get(f'word{place}', f'q{number}w{place}') for place in range(WORDS))}"


def near(number: int) -> str:
    return text(number, word3="changed")


def write(file: Path, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return uri(file)


def prompts(folder: Path, texts: Sequence[str], most: float | None = None) -> dict[str, Any]:
    """Prompts 0 to 11 are held out."""
    held = write(folder / "validation.jsonl", [{"prompt": text(number)} for number in range(12)])
    own = write(folder / "prompts.jsonl", [{"prompt": text} for text in texts])
    return {
        "source": {**own, "column": "prompt"},
        "perIteration": len(texts),
        "validation": {"source": {**held, "column": "prompt"}},
        **({} if most is None else {"maxNearHeldOut": most}),
    }


def demonstrations(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    file = write(folder / "demonstrations.jsonl", [{"prompt": text, "response": "lion"} for text in texts])
    return {"data": [{"name": "answers", **file}]}


def preferences(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    file = write(folder / "pairs.jsonl", [{"prompt": text, "chosen": "lion", "rejected": "moon"} for text in texts])
    return {"type": "BradleyTerry", "bradleyTerry": {"train": {"data": [{"name": "pairs", **file}]}}}


FREE = [text(number) for number in range(100, 1300)]


def test_defect_too_many_that_are_nearly_held_out_are_refused_with_the_first(world: Path, storage: Storage, tmp_path: Path) -> None:
    """Behind the rows that are rendered here, too; what is held out itself is left out, and not of those that are trained on."""
    told = problems(
        world,
        storage,
        tmp_path,
        sft=demonstrations(tmp_path, [*FREE, text(0), *(near(number) for number in range(12)), near(1).upper()]),
        reward=preferences(tmp_path, [*FREE[:99], near(5)]),
        prompts=prompts(tmp_path, FREE[:99]),
    )
    assert "preflight found 1 problem" in told
    assert f"file://{tmp_path}/demonstrations.jsonl: 13 of 1213 (1.07%) ask nearly what a prompt of validation or test asks" in told
    assert f"The first: row 1202 asks '{near(0)[:77]}" in told
    assert f"and file://{tmp_path}/validation.jsonl: row 1 '{text(0)[:77]}" in told
    assert "prompts.maxNearHeldOut (now 0.01)" in told


def test_a_share_that_is_allowed_is_counted_and_told(world: Path, storage: Storage, tmp_path: Path) -> None:
    result = run(
        world,
        storage,
        tmp_path,
        sft=demonstrations(tmp_path, [*FREE[:20], text(0), near(1), near(2)]),
        reward=preferences(tmp_path, [*FREE[:20], text(3), text(4), near(5)]),
        prompts=prompts(tmp_path, [*FREE[:23], near(6)], most=0.1),
    )
    assert {name: count for name, count in result.counts.items() if "eldOut" in name} == {
        "heldOut/answers": 1,
        "nearHeldOut/answers": 2,
        "heldOut/pairs": 2,
        "nearHeldOut/pairs": 1,
        "nearHeldOut/prompts": 1,
    }
    assert sum("ask nearly what a prompt" in warning for warning in result.warnings) == 3
    assert sum("answer prompts of validation or test; they are left out" in warning for warning in result.warnings) == 2


@pytest.mark.parametrize(("most", "refused"), [(0.0, True), (0.04, True), (0.05, False), (1.0, False)])
def test_the_prompts_of_the_iterations_are_compared_too(
    world: Path, storage: Storage, tmp_path: Path, most: float, refused: bool
) -> None:
    asked = prompts(tmp_path, [*FREE[:19], near(6)], most=most)
    if refused:
        assert "prompts.jsonl: 1 of 20 (5.00%) ask nearly" in problems(world, storage, tmp_path, prompts=asked)
    else:
        assert run(world, storage, tmp_path, prompts=asked).counts["nearHeldOut/prompts"] == 1
