"""Reference answers: read beside the prompt, never of it; what is said of those that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.data import HoldOut, Prompts, PromptSource
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import PromptIdentity, PromptSlice
from rlhf_trainer.data.parquet import ANSWER, SAMPLES, TOOLS, samples_schema
from rlhf_trainer.data.prompts import PromptSets, load_prompt_sets
from rlhf_trainer.runtime.errors import ConfigurationProblem


def source_of(path: Path, rows: Sequence[Mapping[str, Any]], answer_column: str | None = "answer", **fields: Any) -> PromptSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptSource(uri=f"file://{path}", column="question", answer_column=answer_column, **fields)


def sets_of(source: PromptSource, **held: HoldOut) -> PromptSets:
    prompts = Prompts(source=source, **{"validation": HoldOut(size=2), **held})
    return load_prompt_sets(prompts, 1, Path("/nowhere"), Storage(url="file:///nowhere"))


def answers(sets: PromptSets) -> dict[str, str | None]:
    return {p.messages[-1]["content"]: p.answer for part in (sets.validation, sets.test, *sets.training) for p in part}


ROWS = [{"question": f"What is {i} + 1?", "answer": f"{i + 1}"} for i in range(10)]


def test_every_prompt_has_the_answer_of_its_row_and_is_asked_without_it(tmp_path: Path) -> None:
    plain = sets_of(source_of(tmp_path / "p.jsonl", ROWS, answer_column=None))
    sets = sets_of(source_of(tmp_path / "p.jsonl", ROWS))
    assert answers(sets) == {row["question"]: row["answer"] for row in ROWS}
    assert set(answers(plain).values()) == {None}
    for own, other in zip([*sets.validation, *sets.training[0]], [*plain.validation, *plain.training[0]], strict=True):
        assert (own.id, own.messages) == (other.id, other.messages), "answers change neither prompts nor what is held out"
        assert "answer" not in str(own.messages)


def test_a_hold_out_of_its_own_has_answers_of_its_own(tmp_path: Path) -> None:
    own = source_of(tmp_path / "v.jsonl", [{"question": "x", "solution": "y"}], answer_column="solution")
    sets = sets_of(source_of(tmp_path / "p.jsonl", ROWS), test=HoldOut(source=own))
    assert [p.answer for p in sets.test] == ["y"]


@pytest.mark.parametrize(
    ("value", "text"), [("42", "42"), (42, "42"), (4.5, "4.5"), (42.0, "42.0"), (None, None), ("", ""), (10**30, str(10**30))]
)
def test_numbers_are_read_as_they_are_written(tmp_path: Path, value: object, text: str | None) -> None:
    sets = sets_of(source_of(tmp_path / "p.jsonl", [{"question": "a", "answer": value}]))
    assert answers(sets) == {"a": text}


def test_a_decimal_of_parquet_is_a_number(tmp_path: Path) -> None:
    column = pa.array(["1.50"]).cast(pa.decimal128(10, 2))
    pq.write_table(pa.table({"question": ["a"], "answer": column}), tmp_path / "p.parquet")
    source = PromptSource(uri=f"file://{tmp_path}/p.parquet", column="question", answer_column="answer")
    assert answers(sets_of(source)) == {"a": "1.50"}


@pytest.mark.parametrize("value", [True, ["42"], {"a": 1}, float("inf")])
def test_what_is_neither_text_nor_a_number_is_named_with_its_row(tmp_path: Path, value: object) -> None:
    source = source_of(tmp_path / "p.jsonl", [*ROWS, {"question": "b", "answer": value}])
    with pytest.raises(
        ConfigurationProblem, match=r"p\.jsonl.* 11.*: the reference answer is .*, neither text nor a number\. Write"
    ):
        sets_of(source)


def test_a_prompt_that_comes_twice_with_different_answers_is_not_scored_by_the_last(tmp_path: Path) -> None:
    rows = [*ROWS, {"question": "What is 3 + 1?", "answer": "5"}]
    with pytest.raises(ConfigurationProblem) as refused:
        sets_of(source_of(tmp_path / "p.jsonl", rows))
    assert "has another reference answer: '5', and '4' there. Leave the wrong one out." in str(refused.value)
    assert str(refused.value).count("p.jsonl") == 2
    assert len(answers(sets_of(source_of(tmp_path / "p.jsonl", [*ROWS, ROWS[3]])))) == 10
    own = source_of(tmp_path / "v.jsonl", [{"question": "What is 3 + 1?", "answer": "5"}])
    with pytest.raises(ConfigurationProblem, match="another reference answer"):
        sets_of(source_of(tmp_path / "p.jsonl", ROWS), test=HoldOut(source=own))


def test_a_column_that_is_not_there_or_that_the_policy_reads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match=r"no column 'solution' \(it has answer, question\)\. Set .*answerColumn"):
        sets_of(source_of(tmp_path / "p.jsonl", ROWS, answer_column="solution"))
    rows = [{**row, "system": "Be brief."} for row in ROWS]
    for column in ("question", "system"):
        with pytest.raises(ConfigurationProblem, match=f"answerColumn is {column}, which the policy is asked with"):
            sets_of(source_of(tmp_path / "p.jsonl", rows, answer_column=column))


def test_a_column_of_answers_stands_behind_the_frozen_ones_of_samples_that_have_any_alone(tmp_path: Path) -> None:
    def schema(answer_column: str | None, identity: PromptIdentity = PromptIdentity.RENDERED) -> pa.Schema:
        prompts = Prompts(source=PromptSource(uri="hf://a/b", answer_column=answer_column))
        return samples_schema(PromptSlice(iterations=1, iteration=1, prompts=prompts, max_prompt_length=9, identity=identity))

    assert schema(None) == SAMPLES
    assert schema("a") == SAMPLES.append(ANSWER)
    assert schema("a", PromptIdentity.RENDERED_WITH_TOOLS) == SAMPLES.append(TOOLS).append(ANSWER)
