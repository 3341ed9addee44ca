"""What is said of rows: where they stand, and what of them nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlhf_api.resource.data import DataSource, PromptSource
from rlhf_trainer.data.layouts import Reader, demonstrations_of, preferences_of, questions_of
from rlhf_trainer.data.rows import FileRow, Row, Tally, Unparsable, Unusable
from rlhf_trainer.runtime.errors import ConfigurationProblem

Of = Callable[[DataSource, list[dict[str, Any]], str], Reader[Any]]


def source(uri: str = "file:///d.jsonl") -> DataSource:
    return DataSource(name="d", uri=uri)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_row_of_several_files_is_named_with_its_file() -> None:
    """A number through all files leads nobody to the line that is to be mended."""
    good: dict[str, Any] = {"messages": [user("a"), assistant("b")]}
    bad: dict[str, Any] = {"messages": None}
    a: list[Row | Unparsable] = [
        FileRow(good, "a.jsonl", 1),
        Unparsable("line 2 of a.jsonl is no JSON", "a.jsonl", 2),
        FileRow(good, "a.jsonl", 5),
    ]
    b = [FileRow(row, "b.jsonl", number) for number, row in enumerate([good, good, bad], start=1)]
    rows = [*a, *b]
    reader = demonstrations_of(source("file:///folder"), rows, "sft.data")
    _, tally = reader.read(rows)
    assert "the first of them row 2 of a.jsonl: line 2" in tally.told()
    assert "the first of them row 3 of b.jsonl: column messages: there is null" in tally.told()
    assert [tally.place(row) for row in (1, 3, 4)] == ["row 1 of a.jsonl", "row 5 of a.jsonl", "row 1 of b.jsonl"]
    whole = Tally(tally.source)
    for first in range(0, 6, 2):
        whole.add(reader.read(rows[first : first + 2], first + 1)[1])
    assert whole.told() == tally.told()
    assert whole.unusable == 2
    _, of_one = demonstrations_of(source("file:///folder/b.jsonl"), b, "sft.data").read(b)
    assert of_one.place(3) == "row 3"


@pytest.mark.parametrize(("unread", "refused", "drawn", "most", "fits"), [(500, 60, 100, 1.0, True), (2, 1, 100, 0.01, False)])
def test_the_share_that_is_lost_is_one_of_what_could_have_been_used(
    unread: int, refused: int, drawn: int, most: float, fits: bool
) -> None:
    tally = Tally(DataSource(name="d", uri="file:///d.jsonl", max_unusable_rows=most), rows=1000, drawn=drawn)
    for row in range(1, unread + 1):
        tally.leave_out(row, Unusable("null", "there is null"))
    for row in range(unread + 1, unread + refused + 1):
        tally.refuse(row, Unusable("templateRefuses", "no system turn"))
    if fits:
        tally.require_usable()
        return
    with pytest.raises(ConfigurationProblem, match=f"{unread + refused} of 1000 rows"):
        tally.require_usable()


ANSWERED = {"prompt": "a", "response": "b"}
PAIR = {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}
SCORED = {"score_chosen": 2.0, "score_rejected": 1.0}


@pytest.mark.parametrize(
    ("of", "row", "not_read"),
    [
        (demonstrations_of, {"messages": [user("a"), assistant("b")], "prompt": "a", "id": 7}, ["id", "prompt"]),
        (demonstrations_of, {**ANSWERED, "system": "Be kind.", "tools": "[]", "input": "c", "empty": None}, ["input"]),
        (demonstrations_of, {"instruction": "a", "input": "c", "output": "b", "text": "abc"}, ["text"]),
        (preferences_of, {**PAIR, **SCORED, "prompt": "a", "prompt_id": "0f"}, ["prompt", "prompt_id"]),
        (preferences_of, {**PAIR, "chosen_score": 2.0, "margin": 1.0}, ["chosen_score"]),
        (preferences_of, {"prompt": "a", "chosen": "b", "rejected": "c", **SCORED}, []),
        (preferences_of, {"prompt": "a", "responses": ["b", "c"], "scores": [1, 2], **SCORED}, sorted(SCORED)),
    ],
)
def test_columns_that_are_not_read_are_named(of: Of, row: dict[str, Any], not_read: list[str]) -> None:
    items, tally = of(source(), [row, row], "field").read([row, row])
    assert len(items) == 2
    assert tally.columns_not_read == not_read
    assert tally.counts().get("columnsNotRead", 0) == len(not_read)


def test_columns_of_prompts_that_are_not_read_are_named_wherever_the_first_of_them_stands() -> None:
    rows = [{"question": "a"}] * 2000 + [{"question": "b", "gold": "c"}]
    assert questions_of(PromptSource(uri="file:///d.jsonl"), rows, "prompts.source").read(rows)[1].columns_not_read == ["gold"]


def test_the_first_row_is_told_whatever_the_order_in_which_rows_are_refused() -> None:
    tally = Tally(source(), rows=9)
    for row in (7, 3, 5):
        tally.refuse(row, Unusable("templateRefuses", f"the words of {row}"))
    assert "3 of 9 rows cannot be used (3, the first of them row 3: the words of 3)" in tally.told()
