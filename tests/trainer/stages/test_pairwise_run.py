"""A whole run of real stages whose reward and judge are one pairwise preference model: what it is told, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.stage import StageResult
from rlhf_api.words import StageName
from rlhf_store import open_artifact, open_store
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.pairwise.labeler import PairwiseLabeler
from support.preflights import uri
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world
from support.tiny_models import save_preference_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preference_model(tmp_path_factory.mktemp("preferences"))


@pytest.fixture(scope="module")
def compared_run(
    world: Path, real_run: RealRun, preferences: Path, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> RealRun:
    """Its sft it finds in the store, of `real_run`."""
    labeler = {"type": "Pairwise", "pairwise": {"model": uri(preferences)}}
    evaluate = {**spec_of_world(world).evaluate.to_wire(), "judge": labeler, "allowTrainingReward": True}
    spec = spec_of_world(world, reward=labeler, evaluate=evaluate, train=real_run.spec.train.to_wire())
    return run_whole_chain(spec, tmp_path_factory.mktemp("compared"), fork_server)


def rows_of(run: RealRun, stage: StageName, iteration: int | None = 1) -> list[dict[str, Any]]:
    result: StageResult = run.result(stage, iteration)
    assert result.artifact is not None
    folder = open_artifact(open_store(run.storage), result.artifact).cached(run.folder / "fetched")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


def test_a_label_is_the_share_of_its_prompts_responses_that_a_response_beats(compared_run: RealRun, preferences: Path) -> None:
    labels = rows_of(compared_run, StageName.LABEL)
    assert labels
    sampled: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(compared_run, StageName.SAMPLE):
        sampled.setdefault(row["prompt_id"], []).append(row)
    labeler = PairwiseLabeler.load(preferences)
    for label in labels[:4]:
        rows = sorted(sampled[label["prompt_id"]], key=lambda row: row["completion_index"])
        expected = labeler.score([Response(row["messages"], row["text"]) for row in rows])
        assert label["scores"] == pytest.approx(expected, abs=1e-5)
        assert sum(label["scores"]) == pytest.approx(len(rows) / 2, abs=1e-5)
        assert label["chosen_score"] == max(label["scores"])


def test_win_rates_are_the_judges_own_and_nothing_has_a_mean(compared_run: RealRun, preferences: Path) -> None:
    metrics = compared_run.result(StageName.EVALUATE).metrics
    first = {row["prompt_id"]: row for row in rows_of(compared_run, StageName.EVALUATE, None) if row["set"] == "validation"}
    own = [row for row in rows_of(compared_run, StageName.EVALUATE) if (row["set"], row["decoding"]) == ("validation", "sampled")]
    judge = PairwiseLabeler.load(preferences)
    better = judge.compare(
        [(Response(row["messages"], row["text"]), Response(row["messages"], first[row["prompt_id"]]["text"])) for row in own]
    )
    assert [row["judge_score"] for row in own] == pytest.approx(better, abs=1e-5)
    won = sum(1.0 if share > 0.5 else 0.5 if share == 0.5 else 0.0 for share in better) / len(better)
    assert metrics[Metric.WIN_RATE_VS_INITIAL].value == pytest.approx(won)
    assert metrics[Metric.WIN_RATE_VS_PREVIOUS].value == pytest.approx(won), "pi_0 is the predecessor of pi_1"
    assert metrics.keys().isdisjoint({Metric.JUDGE_MEAN, Metric.REWARD_MEAN})
    assert (None, StageName.FINALIZE) in compared_run.results
