"""ask: what annotators get to see, and what they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.storage import Storage
from rlhf_api.stage import AskWork
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import Artifact, ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import QUESTIONS, SAMPLES, TOOLS
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages.ask import run
from support.stages import config_of, context_of

TOOL = {"type": "function", "function": {"name": "look_up"}}


def samples(texts: dict[str, list[str]], tools: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": prompt,
            "prompt_ids": [1, 2],
            "messages": [{"role": "user", "content": f"{prompt}?"}],
            "completion_index": index,
            "completion_ids": [3, 2],
            "text": text,
            "logps": [-1.0, -1.0],
            "finish_reason": "stop",
            "iterate": index % 2,
            "temperature": 1.0,
            "template_hash": "0" * 16,
            **({"tools": json.dumps([TOOL]) if prompt == "a" else None} if tools else {}),
        }
        for prompt, own in texts.items()
        for index, text in enumerate(own)
    ]


def sealed(place: Path, rows: list[dict[str, Any]], schema: pa.Schema = SAMPLES) -> tuple[Storage, AskWork]:
    storage = Storage(url=f"file://{place}/store")
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    half = len(rows) // 2
    for number, part in enumerate((rows[half:], rows[:half])):
        file = place / f"samples-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=schema), file)
        writer.add_file(file, file.name)
    return storage, AskWork(samples=writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref, pairs_per_prompt=2)


def asked(place: Path, storage: Storage, work: AskWork) -> tuple[Artifact, list[dict[str, Any]]]:
    result = run(context_of(config_of(work, storage), place / "scratch"))
    assert result.artifact is not None
    artifact = open_artifact(open_store(storage), result.artifact)
    table = pq.read_table(artifact.fetch(place / "questions") / "questions.parquet")
    assert table.schema.equals(QUESTIONS)
    return artifact, table.to_pylist()


def test_annotators_see_the_prompt_and_two_different_responses_and_nothing_of_where_they_come_from(tmp_path: Path) -> None:
    texts = {"a": ["one", "two", "one", "three"], "b": ["same", "same"], "c": ["x", "y"]}
    storage, work = sealed(tmp_path, samples(texts))
    artifact, rows = asked(tmp_path, storage, work)
    assert [row["prompt_id"] for row in rows] == ["a", "a", "c"]
    for row in rows:
        own = texts[row["prompt_id"]]
        assert (own[row["index_a"]], own[row["index_b"]]) == (row["response_a"], row["response_b"])
        assert row["response_a"] != row["response_b"]
        assert row["messages"] == [{"role": "user", "content": f"{row['prompt_id']}?"}]
    lines = [json.loads(line) for line in artifact.read("questions.jsonl").decode().splitlines()]
    assert lines == [{name: value for name, value in row.items() if name != "tools"} for row in rows]
    assert artifact.manifest.counts == {"prompts": 3, "promptsOfEqualResponses": 1, "questions": 3}
    assert artifact.manifest.inputs == [work.samples]


def test_the_tools_of_a_prompt_are_shown_with_it(tmp_path: Path) -> None:
    storage, work = sealed(tmp_path, samples({"a": ["one", "two"], "b": ["x", "y"]}, tools=True), SAMPLES.append(TOOLS))
    artifact, rows = asked(tmp_path, storage, work)
    assert [row["tools"] and json.loads(row["tools"]) for row in rows] == [[TOOL], None]
    first, second = (json.loads(line) for line in artifact.read("questions.jsonl").decode().splitlines())
    assert first["tools"] == [TOOL]
    assert "tools" not in second


def test_where_all_responses_are_equal_there_is_nothing_to_ask(tmp_path: Path) -> None:
    storage, work = sealed(tmp_path, samples({"a": ["one", "one"], "b": ["x", "x"]}))
    with pytest.raises(ConfigurationProblem, match="No prompt of 2 has two different responses"):
        run(context_of(config_of(work, storage), tmp_path / "scratch"))
