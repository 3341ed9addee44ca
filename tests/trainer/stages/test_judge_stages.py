"""label with a judge that is served: pairs, counts, a budget, and a key that is in nothing that is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.labeler import JudgeEndpoint, Labeler, LabelerType, LlmJudge
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label
from rlhf_api.stage import LabelWork, StageResult
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import SAMPLES
from rlhf_trainer.runtime.errors import ConfigurationProblem, StageError, Transient
from rlhf_trainer.stages.label import run
from support.chat_server import ChatServer, Reply, chat_server, said, wrong
from support.stages import config_of, context_of

CANARY = "sk-canary-of-this-test"
TEXTS = ["one", "one two", "one two three"]


def longer(question: str, count: int) -> Reply:
    a, b = question.split("|")[1:]
    return said("[[A]]" if len(a) > len(b) else "[[B]]")


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def label(server: ChatServer, storage: Storage, folder: Path, *, prompts: int = 2, shards: int = 1, **fields: Any) -> StageResult:
    """As the plan makes it: how the endpoint is asked is no part of the work."""
    rows = [
        {
            "prompt_id": f"p{prompt}",
            "prompt_ids": [1, 2],
            "messages": [{"role": "user", "content": f"question {prompt}"}],
            "completion_index": index,
            "completion_ids": [3, 2],
            "text": text,
            "logps": [-1.0, -1.0],
            "finish_reason": "stop",
            "iterate": 0,
            "temperature": 1.0,
            "template_hash": "0" * 16,
        }
        for prompt in range(prompts)
        for index, text in enumerate(TEXTS)
    ]
    file = folder / "samples.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), file)
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    writer.add_file(file, file.name)
    endpoint = JudgeEndpoint(base_url=server.url, model="judge")
    work = LabelWork(
        samples=writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref,
        labeler=Labeler(type=LabelerType.JUDGE, judge=LlmJudge(endpoint=endpoint, prompt="{prompt}|{responseA}|{responseB}")),
        label=Label(),
        completions_per_prompt=len(TEXTS),
    )
    key = {"apiKey": {"secretRef": {"name": "judge-key"}}}
    asked = JudgeEndpoint.model_validate({**endpoint.to_wire(), **key, "retries": 0, **fields})
    config = config_of(work, storage, shards=shards, reward_endpoint=asked)
    return [run(context_of(config, folder / str(shard), shard)) for shard in range(shards)][-1]


@pytest.mark.parametrize("shards", [1, 2])
def test_labels_are_the_judges_shares_and_what_it_was_asked_is_counted(storage: Storage, tmp_path: Path, shards: int) -> None:
    with chat_server(longer) as server:
        result = label(server, storage, tmp_path, shards=shards)
    assert result.artifact is not None
    assert result.counts == {
        "prompts": 2,
        "promptsIncomplete": 0,
        "promptsPaired": 2,
        "pairs": 2,
        "judgeRequests": 12,
        "judgeAnswers": 12,
    }
    folder = open_artifact(open_store(storage), result.artifact).fetch(tmp_path / "labels")
    rows = [row for file in folder.rglob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert [(row["chosen_index"], row["rejected_index"], row["scores"]) for row in rows] == [(2, 0, [0.0, 0.5, 1.0])] * 2


def test_the_key_is_in_nothing_that_is_kept(storage: Storage, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    told = []
    with chat_server(longer) as server:
        told.append(label(server, storage, tmp_path).model_dump_json())
        assert set(server.keys) == {f"Bearer {CANARY}"}
    with chat_server(lambda question, count: wrong(401, f"Incorrect API key provided: {CANARY}")) as server:
        with pytest.raises(StageError) as raised:
            label(server, storage, tmp_path)
        told.append(str(raised.value))
    kept = [file for file in [*Path(storage.url.removeprefix("file://")).rglob("*"), *tmp_path.rglob("*")] if file.is_file()]
    assert any(file.name == "manifest.json" for file in kept)
    assert [file for file in kept if CANARY.encode() in file.read_bytes()] == []
    assert CANARY not in json.dumps(told) + caplog.text


def test_how_a_judge_fails_is_how_its_stage_ends(storage: Storage, tmp_path: Path) -> None:
    with chat_server(longer) as server, pytest.raises(ConfigurationProblem, match="maxRequests allows 11: 12 more are needed"):
        label(server, storage, tmp_path, maxRequests=11)
    fine = said("Both are fine.")
    with chat_server(lambda question, count: fine) as server, pytest.raises(ConfigurationProblem, match=r"'Both are fine\.'"):
        label(server, storage, tmp_path)
    with chat_server(lambda question, count: wrong(503)) as server, pytest.raises(Transient, match="HTTP 503, asked once"):
        label(server, storage, tmp_path)
