"""What a manifest says itself of right responses is looked at before anything runs: patterns, schemas, every reference answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.storage import Storage
from support.preflights import problems, run


def rule(**members: Any) -> dict[str, Any]:
    return {"type": "Rule", "rule": members}


def answered(world: Path, file: Path, answers: dict[int, Any], column: str = "answer") -> dict[str, Any]:
    """The world's prompts, each with its row's number as reference answer, or what `answers` has for it."""
    rows = [
        row | {column: answers.get(i, i)} for i, row in enumerate(pq.read_table(world / "prompts.parquet").to_pylist(), start=1)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": {"uri": f"file://{file}", "answerColumn": column}, "perIteration": 24, "validation": {"size": 12}}


def test_rules_without_code_are_sound_and_have_no_revision(world: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(
        world,
        storage,
        tmp_path / "scratch",
        reward=rule(numericAnswer={}),
        evaluate={"judge": rule(exactMatch={"ignoreCase": True})},
        prompts=answered(world, tmp_path / "p.jsonl", {}),
    )
    assert not [path for path in found.resolved if path.endswith(".rule")]


def test_every_pattern_and_schema_that_is_none_is_told_at_once(world: Path, storage: Storage, tmp_path: Path) -> None:
    told = problems(
        world,
        storage,
        tmp_path,
        reward=rule(regex={"pattern": "("}),
        evaluate={"judge": rule(jsonSchema={"inline": '{"type": 1}'})},
    )
    assert "preflight found 2 problems:" in told
    assert "reward.rule.regex.pattern '(' is no pattern" in told
    assert "evaluate.judge.rule.jsonSchema.inline is no JSON Schema: at $.type" in told


@pytest.mark.parametrize(
    ("wrong", "said"),
    [(None, "the reference answer is missing. Write a number"), ("six", "the reference answer is 'six', which is no number")],
)
@pytest.mark.parametrize("row", [1, 30])
def test_a_row_whose_answer_is_none_is_named_before_anything_is_sampled(
    world: Path, storage: Storage, tmp_path: Path, row: int, wrong: object, said: str
) -> None:
    prompts = answered(world, tmp_path / "p.jsonl", {row: wrong})
    told = problems(world, storage, tmp_path / "scratch", reward=rule(numericAnswer={}), prompts=prompts)
    assert "preflight found 1 problem:" in told
    assert f"p.jsonl: row {row}" in told
    assert said in told


def test_a_judge_needs_the_answers_of_what_it_judges_alone(world: Path, storage: Storage, tmp_path: Path) -> None:
    held = answered(world, tmp_path / "held.jsonl", {})
    lines = (tmp_path / "held.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "held.jsonl").write_text("".join(lines[:12]))
    prompts = answered(world, tmp_path / "p.jsonl", dict.fromkeys(range(1, 1000)))
    prompts["validation"] = {"source": held["source"], "size": 12}
    judge = {"judge": rule(exactMatch={})}
    run(world, storage, tmp_path / "scratch", prompts=prompts, evaluate=judge)
    told = problems(world, storage, tmp_path / "again", prompts={**prompts, "test": {"size": 2}}, evaluate=judge)
    assert "the reference answer is missing. Write what a right response is" in told


def test_a_column_that_is_not_there_is_told_once(world: Path, storage: Storage, tmp_path: Path) -> None:
    prompts = answered(world, tmp_path / "p.jsonl", {})
    prompts["source"]["answerColumn"] = "solution"
    told = problems(world, storage, tmp_path / "scratch", reward=rule(exactMatch={}), prompts=prompts)
    assert told.count("has no column 'solution'") == 1
