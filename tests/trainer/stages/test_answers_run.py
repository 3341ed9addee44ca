"""A whole run of real stages whose judge compares with reference answers: where they are found, and who never sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.words import StageName
from rlhf_store import open_artifact, open_store
from rlhf_trainer.data.parquet import ANSWER
from rlhf_trainer.quickstart.task import answer
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def prompts(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The answer of each prompt by what is asked."""
    rows = pq.read_table(world / "prompts.parquet").to_pylist()
    return {row["messages"][-1]["content"]: " ".join(answer(row["messages"][-1]["content"])) for row in rows}


@pytest.fixture(scope="module")
def answered_run(
    world: Path,
    real_run: RealRun,
    prompts: dict[str, str],
    fork_server: ForkServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> RealRun:
    """Its sft it finds in the store, of `real_run`."""
    folder = tmp_path_factory.mktemp("answered")
    rows = [{"messages": [{"role": "user", "content": asked}], "words": words} for asked, words in prompts.items()]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = spec_of_world(world)
    source = {"uri": f"file://{folder}/prompts.jsonl", "answerColumn": "words"}
    evaluate = {**spec.evaluate.to_wire(), "judge": {"type": "Rule", "rule": {"exactMatch": {}}}}
    spec = spec_of_world(
        world, prompts={**spec.prompts.to_wire(), "source": source}, evaluate=evaluate, train=real_run.spec.train.to_wire()
    )
    return run_whole_chain(spec, folder, fork_server)


def rows_of(run: RealRun, stage: StageName, iteration: int | None = 1) -> list[dict[str, Any]]:
    result = run.result(stage, iteration)
    assert result.artifact is not None
    folder = open_artifact(open_store(run.storage), result.artifact).cached(run.folder / "fetched")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


def test_samples_have_the_answer_of_their_row_and_are_asked_without_it(
    answered_run: RealRun, real_run: RealRun, prompts: dict[str, str]
) -> None:
    samples = rows_of(answered_run, StageName.SAMPLE)
    assert samples
    plain = {row["prompt_id"]: row["prompt_ids"] for row in rows_of(real_run, StageName.SAMPLE)}
    for row in samples:
        (asked,) = row["messages"]
        assert row[ANSWER.name] == prompts[asked["content"]]
        assert plain.get(row["prompt_id"], row["prompt_ids"]) == row["prompt_ids"]
    assert plain.keys() & {row["prompt_id"] for row in samples}


def test_the_judge_compares_each_answer_with_its_prompts_own(answered_run: RealRun, prompts: dict[str, str]) -> None:
    for iteration in (None, 1):
        rows = rows_of(answered_run, StageName.EVALUATE, iteration)
        right = [float(row["text"].strip() == prompts[row["messages"][-1]["content"]]) for row in rows]
        assert [row["judge_score"] for row in rows] == right
        own = [score for row, score in zip(rows, right, strict=True) if (row["set"], row["decoding"]) == ("validation", "sampled")]
        mean = answered_run.result(StageName.EVALUATE, iteration).metrics[Metric.JUDGE_MEAN].value
        assert mean == pytest.approx(sum(own) / len(own))
    assert (None, StageName.FINALIZE) in answered_run.results
