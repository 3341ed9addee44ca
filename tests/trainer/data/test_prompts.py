"""Prompts: hold-outs, iterations, shards; and what is said of rows that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.data import HoldOut, Prompts, PromptSource
from rlhf_api.resource.storage import Storage
from rlhf_trainer.data.prompts import PromptSets, load_prompt_sets, prompt_id
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.sharding import shard_of

STORAGE = Storage(url="file:///nowhere")


def write(path: Path, texts: Sequence[object], column: str = "messages") -> PromptSource:
    path.write_text("".join(json.dumps({column: text}) + "\n" for text in texts))
    return PromptSource(uri=f"file://{path}")


def sets_of(prompts: Prompts, iterations: int = 2, **options: Any) -> PromptSets:
    return load_prompt_sets(prompts, iterations, Path("/nowhere"), STORAGE, **options)


def texts(part: Sequence[Any]) -> set[str]:
    return {prompt.messages[-1]["content"] for prompt in part}


def every_part(sets: PromptSets) -> list[set[str]]:
    return [texts(sets.validation), texts(sets.test), *(texts(part) for part in sets.training)]


def test_defect_evaluation_prompts_are_never_training_prompts(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", [f"prompt {i}" for i in range(100)])
    sets = sets_of(Prompts(source=source, per_iteration=30, validation=HoldOut(size=15), test=HoldOut(fraction=0.1)), iterations=2)
    parts = every_part(sets)
    assert [len(part) for part in parts] == [15, 8, 30, 30]
    assert len(set().union(*parts)) == sum(map(len, parts))


def test_hold_outs_are_the_same_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [f"prompt {i}" for i in range(50)]
    prompts = Prompts(source=write(tmp_path / "a.jsonl", rows), validation=HoldOut(size=10))
    turned = Prompts(source=write(tmp_path / "b.jsonl", rows[::-1]), validation=HoldOut(size=10))
    assert sets_of(prompts).validation == sets_of(turned).validation
    assert sets_of(prompts).training == sets_of(turned).training


def test_hold_outs_are_taken_evenly_from_the_sources_of_all_iterations(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(tmp_path / f"{number}.jsonl", [f"source {number} prompt {i}" for i in range(20)])
    source = PromptSource(uri=f"file://{tmp_path}/{{iteration}}.jsonl")
    sets = sets_of(Prompts(source=source, validation=HoldOut(size=10)), iterations=3)
    held = [sum(text.startswith(f"source {number} ") for text in texts(sets.validation)) for number in (1, 2, 3)]
    assert held == [4, 3, 3]
    assert [len(part) for part in sets.training] == [16, 17, 17]


def test_an_equal_prompt_of_another_source_cannot_leak_a_held_out_one(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"{number}.jsonl", [f"prompt {i}" for i in range(20)])
    source = PromptSource(uri=f"file://{tmp_path}/{{iteration}}.jsonl")
    sets = sets_of(Prompts(source=source, validation=HoldOut(size=6)))
    parts = every_part(sets)
    assert len(set().union(*parts)) == sum(map(len, parts)) == 20
    assert len(sets.validation) == 6
    assert sets.counts["duplicates"] == 20


def test_hold_outs_with_sources_of_their_own_are_disjoint_from_all_else(tmp_path: Path) -> None:
    shared = [f"shared {i}" for i in range(5)]
    source = write(tmp_path / "p.jsonl", [*shared, *(f"prompt {i}" for i in range(10))])
    validation = write(tmp_path / "v.jsonl", [*shared, "only validation"])
    test = write(tmp_path / "t.jsonl", [*shared, "only test", "only test"])
    sets = sets_of(Prompts(source=source, validation=HoldOut(source=validation), test=HoldOut(source=test)), iterations=1)
    assert texts(sets.validation) == {*shared, "only validation"}
    assert texts(sets.test) == {"only test"}
    assert texts(sets.training[0]) == {f"prompt {i}" for i in range(10)}


def test_iterations_beyond_the_first_plan_change_no_hold_out(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", [f"prompt {i}" for i in range(90)])
    prompts = Prompts(source=source, per_iteration=20, validation=HoldOut(size=10))
    before, after = sets_of(prompts, 2), sets_of(prompts, 2, last=4)
    assert after.validation == before.validation
    assert after.training[:2] == before.training
    assert len(after.training[3]) == 20


@given(rows=st.integers(0, 100), shards=st.integers(1, 13))
def test_defect_no_remainder_is_lost_whatever_the_number_of_shards(rows: int, shards: int) -> None:
    parts = [shard_of(range(rows), index, shards) for index in range(shards)]
    assert sorted(row for part in parts for row in part) == list(range(rows))


def test_duplicates_are_asked_once_and_counted(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", ["a", "b", "a", [{"role": "user", "content": "b"}], "c"])
    sets = sets_of(Prompts(source=source, validation=HoldOut(size=0)), iterations=1)
    assert texts(sets.training[0]) == {"a", "b", "c"}
    assert dict(sets.counts) == {"rows": 5, "duplicates": 2, "validation": 0, "test": 0}


def test_equal_prompts_have_equal_ids_and_different_ones_have_not() -> None:
    def of(*contents: str) -> str:
        return prompt_id([{"role": "user", "content": content} for content in contents])

    assert of("a") == of("a")
    assert len({of("a"), of("b"), of("a", "b"), of("ab"), prompt_id([{"role": "system", "content": "a"}])}) == 5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["fine", ""], "row 2: column messages: the text is empty"),
        (["fine", "   "], "row 2"),
        (["fine", 7], "row 2: column messages: 7 is no list"),
        (["fine", []], "row 2: column messages: the list of messages is empty"),
        (["fine", ["text"]], "row 2: column messages: 'text' is no message"),
        (["fine", [{"role": "user"}]], "row 2"),
        (["fine", [{"role": "user", "content": " "}]], "row 2: column messages: a turn of the user says nothing"),
        (
            ["fine", [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]],
            "row 2: it ends with a turn of the assistant",
        ),
    ],
)
def test_a_row_that_is_no_prompt_is_named_by_its_number(tmp_path: Path, rows: list[object], said: str) -> None:
    source = write(tmp_path / "p.jsonl", rows)
    with pytest.raises(ConfigurationProblem, match=said) as raised:
        sets_of(Prompts(source=source))
    assert str(tmp_path / "p.jsonl") in str(raised.value)


def test_a_column_that_is_missing_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    source = write(tmp_path / "p.jsonl", ["text"], column="line")
    with pytest.raises(ConfigurationProblem, match=r"no column 'messages' .*line.*prompts\.source\.column"):
        sets_of(Prompts(source=source))


def test_messages_of_sharegpt_are_understood(tmp_path: Path) -> None:
    turn = {"from": "human", "value": "hello", "role": None, "content": None}
    sets = sets_of(Prompts(source=write(tmp_path / "p.jsonl", [[turn]]), validation=HoldOut(size=0)), iterations=1)
    assert sets.training[0][0].messages == ({"role": "user", "content": "hello"},)
