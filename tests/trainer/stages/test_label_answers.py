"""label with rules that the manifest states itself: the reference answer comes with the samples, whatever the shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.labeler import Labeler
from rlhf_api.resource.storage import Storage
from rlhf_api.resource.training import Label
from rlhf_api.stage import ArtifactRef, LabelWork, StageResult
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import ArtifactWriter, open_artifact, open_store
from rlhf_trainer.data.parquet import ANSWER, SAMPLES
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.stages.label import run
from support.stages import config_of, context_of


def row(prompt: str, index: int, text: str, answer: str | None) -> dict[str, Any]:
    return {
        "prompt_id": prompt,
        "prompt_ids": [1, 2, 3],
        "messages": [{"role": "user", "content": prompt}],
        "completion_index": index,
        "completion_ids": [3 + index, 2],
        "text": text,
        "logps": [-1.0, -1.0],
        "finish_reason": "stop",
        "iterate": 0,
        "temperature": 1.0,
        "template_hash": "0" * 16,
        ANSWER.name: answer,
    }


def sealed(storage: Storage, rows: Sequence[dict[str, Any]], folder: Path, schema: pa.Schema) -> ArtifactRef:
    writer = ArtifactWriter(open_store(storage), ArtifactKind.SAMPLES, "a" * 64)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / "samples.parquet")
    writer.add_file(folder / "samples.parquet", "samples.parquet")
    return writer.seal(stage=StageName.SAMPLE, rows=len(rows)).ref


def label(storage: Storage, samples: ArtifactRef, scratch: Path, rule: dict[str, Any], shards: int = 1) -> StageResult:
    work = LabelWork(
        samples=samples,
        labeler=Labeler.model_validate({"type": "Rule", "rule": rule}),
        label=Label(min_yield=0.0),
        completions_per_prompt=3,
    )
    config = config_of(work, storage, shards=shards)
    return [run(context_of(config, scratch / str(shard), shard)) for shard in range(shards)][-1]


def labels(storage: Storage, result: StageResult, folder: Path) -> dict[str, list[float]]:
    assert result.artifact is not None
    place = open_artifact(open_store(storage), result.artifact).fetch(folder)
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(place.rglob("*.parquet"))]).to_pylist()
    return {found["prompt_id"]: found["scores"] for found in rows}


ROWS = [
    *(row("a", i, text, "42") for i, text in enumerate(["41", "it is 42", ""])),
    *(row("b", i, text, "1/2") for i, text in enumerate(["0.5", "50%", "2"])),
    *(row("c", i, text, "7") for i, text in enumerate(["1", "2", "3"])),
]


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_each_response_is_compared_with_the_answer_of_its_own_prompt(storage: Storage, tmp_path: Path, shards: int) -> None:
    samples = sealed(storage, ROWS, tmp_path, SAMPLES.append(ANSWER))
    result = label(storage, samples, tmp_path, {"numericAnswer": {}}, shards)
    assert labels(storage, result, tmp_path / "read") == {"a": [0.0, 1.0, 0.0], "b": [1.0, 1.0, 0.0]}
    assert result.counts["promptsTied"] == 1


def test_rules_that_compare_with_nothing_need_no_column(storage: Storage, tmp_path: Path) -> None:
    samples = sealed(storage, ROWS, tmp_path, SAMPLES)
    result = label(storage, samples, tmp_path, {"regex": {"pattern": "4"}})
    assert labels(storage, result, tmp_path / "read") == {"a": [1.0, 1.0, 0.0]}


def test_samples_without_answers_are_no_wrong_responses(storage: Storage, tmp_path: Path) -> None:
    samples = sealed(storage, ROWS, tmp_path, SAMPLES)
    with pytest.raises(ConfigurationProblem, match="The reference answer of prompt a, completion 0 is missing"):
        label(storage, samples, tmp_path, {"exactMatch": {}})
