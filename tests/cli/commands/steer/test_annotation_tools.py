"""annotations import: what annotation tools export, as they write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.conventions.annotations import annotations_key
from rlhfctl.exits import Exit
from support.people import PAIRS, Row, imported, spec_of, waiting

EXPECTED = [(PAIRS[0], "7", "A"), (PAIRS[0], "9", "B"), (PAIRS[1], "7", "B"), (PAIRS[2], "7", "tie")]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return waiting(tmp_path)


def taken(state: Path) -> list[Row]:
    [entry] = spec_of(state)["annotations"]
    return [tuple(row.values()) for row in pq.read_table(state / "store" / annotations_key(entry["digest"])).to_pylist()]


def task(number: int, pair: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """Of Label Studio."""
    data = {"pair_id": pair, "messages": [], "response_a": "one", "response_b": "x"}
    meta = {"created_at": "2026-03-09T21:52:49.513742Z", "project": 83, "meta": {}, "predictions": [], "drafts": []}
    return {"id": number, "annotations": annotations, "data": data, **meta}


def choices(who: object, *chosen: str, cancelled: bool = False) -> dict[str, Any]:
    region = {
        "id": "zLSY",
        "type": "choices",
        "value": {"choices": [*chosen]},
        "from_name": "choice",
        "to_name": "a",
        "origin": "manual",
    }
    remark = {"id": "uh87", "type": "textarea", "value": {"text": ["close"]}, "from_name": "why", "to_name": "a"}
    result = [remark, region] if chosen else []
    return {"id": 1, "completed_by": who, "result": result, "was_cancelled": cancelled, "ground_truth": False, "lead_time": 4.3}


def test_label_studios_tasks_are_taken_with_every_annotators_own_answer(state: Path) -> None:
    tasks = [
        task(1, PAIRS[0], [choices(7, "A"), choices({"id": 9, "email": ""}, "B"), choices(11, "A", cancelled=True)]),
        task(2, PAIRS[1], [choices(7, "B"), choices(9)]),
        task(3, PAIRS[2], [choices(7, "tie")]),
    ]
    (state / "project-83-at-2026-03-09.json").write_text(json.dumps(tasks))
    done = imported(state, state / "project-83-at-2026-03-09.json")
    assert done.code == 0, done.err
    assert taken(state) == EXPECTED


def test_sides_of_label_studios_tag_pairwise_are_a_and_b(state: Path) -> None:
    def side(which: str) -> dict[str, Any]:
        region = {"type": "pairwise", "value": {"selected": which}, "from_name": "choice", "to_name": "a,b"}
        return {"completed_by": {"id": 7, "email": "ann@example.com"}, "result": [region], "was_cancelled": False}

    tasks = [
        task(number, pair, [side(which)]) for number, (pair, which) in enumerate(zip(PAIRS, ["left", "right", "left"], strict=True))
    ]
    (state / "a.json").write_text(json.dumps(tasks))
    assert imported(state, state / "a.json").code == 0
    assert [row[1:] for row in taken(state)] == [("ann@example.com", choice) for choice in "ABA"]


def test_two_choices_at_once_are_no_choice(state: Path) -> None:
    (state / "a.json").write_text(json.dumps([task(1, PAIRS[0], [choices(7, "A", "B")])]))
    done = imported(state, state / "a.json", partial=True)
    assert done.code == Exit.REFUSED
    assert "a.json, entry 1: 'A, B' is no choice; write A, B or tie" in " ".join(done.err.split())


def test_label_studios_short_json_and_its_csv_have_a_row_an_answer(state: Path) -> None:
    rows = [
        {
            "response_a": "one",
            "pair_id": pair,
            "id": 1,
            "choice": choice,
            "annotator": int(who),
            "annotation_id": 5,
            "lead_time": 2.5,
        }
        for pair, who, choice in EXPECTED
    ]
    (state / "a.json").write_text(json.dumps(rows))
    assert imported(state, state / "a.json").code == 0
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(str(row[name]) for name in columns) for row in rows)]
    (state / "a.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    again = imported(state, state / "a.csv")
    assert "nothing is changed" in " ".join(again.err.split()), "the same answers are the same"
    assert taken(state) == EXPECTED


@pytest.mark.parametrize("where", ["fields", "metadata", "id"])
def test_argillas_records_are_taken_without_drafts(state: Path, where: str) -> None:
    def record(pair: str, *responses: dict[str, Any]) -> dict[str, Any]:
        named = {where: {"pair_id": pair}} if where != "id" else {"id": pair}
        return {
            "id": "5b2",
            "fields": {"response_a": "one"},
            "metadata": {},
            "suggestions": {},
            "vectors": {},
            "status": "completed",
        } | ({**named, "responses": {"choice": [*responses], "why": [{"value": "close", "user_id": "7"}]}})

    given = [
        record(PAIRS[0], {"value": "A", "user_id": "7"}, {"value": "B", "user_id": "9", "status": "submitted"}),
        record(PAIRS[1], {"value": "B", "user_id": "7"}, {"value": "A", "user_id": "9", "status": "draft"}),
        record(PAIRS[2], {"value": "tie", "user_id": "7"}),
    ]
    (state / "a.json").write_text(json.dumps(given))
    done = imported(state, state / "a.json")
    assert done.code == 0, done.err
    assert taken(state) == EXPECTED


def test_argillas_columns_are_taken_from_parquet(state: Path) -> None:
    table = pa.table(
        {
            "id": PAIRS,
            "status": ["completed"] * 3,
            "response_a": ["one"] * 3,
            "choice.responses": [["A", "B"], ["B"], ["tie", "A"]],
            "choice.responses.users": [["7", "9"], ["7"], ["7", "9"]],
            "choice.responses.status": [["submitted", "submitted"], ["submitted"], ["submitted", "discarded"]],
        }
    )
    pq.write_table(table, state / "a.parquet")
    done = imported(state, state / "a.parquet")
    assert done.code == 0, done.err
    assert taken(state) == EXPECTED


def test_lines_of_json_in_a_file_of_json_are_told_where_they_belong(state: Path) -> None:
    (state / "a.json").write_text("{}\n{}\n")
    done = imported(state, state / "a.json")
    assert done.code == Exit.USAGE
    assert "lines of JSON belong into a.jsonl" in " ".join(done.err.split())


def test_a_csv_with_semicolons_names_the_columns_that_it_has(state: Path) -> None:
    (state / "a.csv").write_text(f"pair_id;annotator;choice\n{PAIRS[0]};ann;A\n")
    done = imported(state, state / "a.csv")
    assert done.code == Exit.USAGE
    said = " ".join(done.err.split())
    assert "line 2 has no pair_id and no annotator and no choice" in said
    assert "it has pair_id;annotator;choice" in said
