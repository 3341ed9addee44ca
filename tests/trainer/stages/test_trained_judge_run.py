"""A whole run of real stages whose reward and judge are both trained by it: who scores with which, and what is told of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.stage import ArtifactRef
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import find_artifact, open_artifact, open_store
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.runtime.narrow import present
from support.preflights import uri
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def judged_run(world: Path, real_run: RealRun, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """Its sft and its reward it finds in the store, of `real_run`; the judge has pairs of its own, and begins at pi_0, too."""
    folder = tmp_path_factory.mktemp("judged")
    pairs = folder / "others.parquet"
    pq.write_table(pq.read_table(world / "preferences.parquet").slice(0, 64), pairs)
    training = {
        "data": [{"name": "others", **uri(pairs)}],
        "optimization": {"learningRate": 1e-3, "globalBatchSize": 8, "maxSteps": 6, "gradientCheckpointing": False},
        "maxLength": 96,
        "heldOut": {"fraction": 0.25},
    }
    judge = {"type": "BradleyTerry", "bradleyTerry": {"train": training}}
    evaluate = {**spec_of_world(world).evaluate.to_wire(), "judge": judge}
    return run_whole_chain(spec_of_world(world, evaluate=evaluate, train=real_run.spec.train.to_wire()), folder, fork_server)


def sealed(run: RealRun, stage: StageName, iteration: int | None = None) -> ArtifactRef:
    return present(run.result(stage, iteration).artifact, str(stage))


def rows_of(run: RealRun, stage: StageName, iteration: int | None = 1) -> list[dict[str, Any]]:
    folder = open_artifact(open_store(run.storage), sealed(run, stage, iteration)).cached(run.folder / "fetched")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


def test_each_stage_reads_the_model_that_was_trained_for_it(judged_run: RealRun, real_run: RealRun) -> None:
    assert sealed(judged_run, StageName.REWARD) == sealed(real_run, StageName.REWARD), "a judge changes no training reward"
    judge, reward = sealed(judged_run, StageName.JUDGE), sealed(judged_run, StageName.REWARD)
    assert judge.kind is ArtifactKind.REWARD_MODEL
    store = open_store(judged_run.storage)
    of_label = open_artifact(store, sealed(judged_run, StageName.LABEL, 1)).manifest.inputs
    assert reward in of_label
    assert judge not in of_label
    for iteration in (None, 1):
        inputs = open_artifact(store, sealed(judged_run, StageName.EVALUATE, iteration)).manifest.inputs
        assert judge in inputs
        assert reward in inputs
        rows = [row for row in rows_of(judged_run, StageName.EVALUATE, iteration) if row["set"] == "validation"][:6]
        responses = [Response(row["messages"], row["text"]) for row in rows]
        for ref, column in ((judge, "judge_score"), (reward, "reward_score")):
            labeler = BradleyTerryLabeler.load(open_artifact(store, ref).cached(judged_run.folder / "fetched"))
            assert [row[column] for row in rows] == pytest.approx(labeler.score(responses), abs=1e-4)


def test_preflight_prepares_its_pairs_and_it_is_measured_by_those_held_out(judged_run: RealRun) -> None:
    assert "evaluate.judge.bradleyTerry.train.data/others" in judged_run.resolved
    store = open_store(judged_run.storage)
    manifest = open_artifact(store, sealed(judged_run, StageName.JUDGE)).manifest
    tokens = present(find_artifact(store, ArtifactKind.TOKENS, manifest.config["tokens"]), "its tokens")
    assert tokens.manifest.stage == StageName.JUDGE
    assert manifest.counts["pairsHeldOut"] > 0
    assert manifest.file("held_out.json") is not None
    assert Metric.HELD_OUT_REWARD_ACCURACY in judged_run.result(StageName.JUDGE, None).metrics
    assert Metric.HELD_OUT_REWARD_ACCURACY not in judged_run.result(StageName.REWARD, None).metrics


def test_win_rates_are_by_the_trained_judge_and_the_run_ends(judged_run: RealRun) -> None:
    assert {Metric.WIN_RATE_VS_INITIAL, Metric.JUDGE_MEAN, Metric.KL_TO_INITIAL} <= judged_run.result(
        StageName.EVALUATE
    ).metrics.keys()
    finalize = judged_run.config(StageName.FINALIZE, None).work
    assert sealed(judged_run, StageName.JUDGE) in finalize.trained  # type: ignore[union-attr]
    folder = open_artifact(open_store(judged_run.storage), sealed(judged_run, StageName.JUDGE)).cached(
        judged_run.folder / "fetched"
    )
    assert "quickstart: judge" in (folder / "README.md").read_text()
