"""A whole run of real stages whose reward and judge are one multi-objective reward model: what it is told, and what comes of it."""

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
from rlhf_trainer.labelers.gated.labeler import MultiObjectiveLabeler
from support.preflights import uri
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world
from support.tiny_models import save_gated_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gated_model(tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def scored_run(
    world: Path, real_run: RealRun, gated: Path, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> RealRun:
    """Its sft it finds in the store, of `real_run`."""
    labeler = {"type": "MultiObjective", "multiObjective": {"model": uri(gated)}}
    evaluate = {**spec_of_world(world).evaluate.to_wire(), "judge": labeler, "allowTrainingReward": True}
    spec = spec_of_world(world, reward=labeler, evaluate=evaluate, train=real_run.spec.train.to_wire())
    return run_whole_chain(spec, tmp_path_factory.mktemp("scored"), fork_server)


def rows_of(run: RealRun, stage: StageName, iteration: int | None = 1) -> list[dict[str, Any]]:
    result: StageResult = run.result(stage, iteration)
    assert result.artifact is not None
    folder = open_artifact(open_store(run.storage), result.artifact).cached(run.folder / "fetched")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


def test_a_label_has_the_scores_of_its_responses(scored_run: RealRun, gated: Path) -> None:
    labels = rows_of(scored_run, StageName.LABEL)
    assert labels
    sampled: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(scored_run, StageName.SAMPLE):
        sampled.setdefault(row["prompt_id"], []).append(row)
    labeler = MultiObjectiveLabeler.load(gated)
    for label in labels[:4]:
        rows = sorted(sampled[label["prompt_id"]], key=lambda row: row["completion_index"])
        expected = labeler.score([Response(row["messages"], row["text"]) for row in rows])
        assert label["scores"] == pytest.approx(expected, abs=1e-5)
        assert label["chosen_score"] == max(label["scores"])
        assert label["chosen_score"] > label["rejected_score"]


def test_its_scores_have_means_and_win_rates_go_by_comparison(scored_run: RealRun) -> None:
    metrics = scored_run.result(StageName.EVALUATE).metrics
    first = {row["prompt_id"]: row for row in rows_of(scored_run, StageName.EVALUATE, None) if row["set"] == "validation"}
    own = [row for row in rows_of(scored_run, StageName.EVALUATE) if (row["set"], row["decoding"]) == ("validation", "sampled")]
    scores = [row["judge_score"] for row in own]
    against = [first[row["prompt_id"]]["judge_score"] for row in own]
    won = [0.5 if abs(a - b) < 1e-6 else float(a > b) for a, b in zip(scores, against, strict=True)]
    assert metrics[Metric.WIN_RATE_VS_INITIAL].value == pytest.approx(sum(won) / len(won))
    assert metrics[Metric.WIN_RATE_VS_PREVIOUS].value == pytest.approx(sum(won) / len(won)), "pi_0 is the predecessor of pi_1"
    assert metrics[Metric.JUDGE_MEAN].value == pytest.approx(sum(scores) / len(scores))
    assert metrics[Metric.REWARD_MEAN].value == pytest.approx(metrics[Metric.JUDGE_MEAN].value), "reward and judge are one model"
    assert (None, StageName.FINALIZE) in scored_run.results
