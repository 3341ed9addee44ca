"""A whole run of real stages whose reward is a pairwise preference model that it trains: who reads it, how good it says it is."""

from __future__ import annotations

import json
import random
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
from rlhf_trainer.labelers.pairwise.labeler import PairwiseLabeler
from rlhf_trainer.runtime.narrow import present
from support.conversations import user
from support.preflights import uri
from support.stages import ForkServer, RealRun, run_whole_chain, spec_of_world
from support.tiny_models import save_preference_model

pytestmark = pytest.mark.engine


def easy_pairs(count: int) -> list[dict[str, str]]:
    """What ends with a 1 is better: a rule that a model of two layers learns in a hundred steps, if it reads the right tokens."""
    drawn = random.Random(0)
    numbers = [(drawn.randrange(10), drawn.randrange(10), drawn.randrange(10)) for _ in range(count)]
    return [{"prompt": f"{a} + {n}", "chosen": f"{b} 1", "rejected": f"{c} 0"} for n, (a, b, c) in enumerate(numbers)]


@pytest.fixture(scope="module")
def trained_run(world: Path, real_run: RealRun, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """Its sft it finds in the store, of `real_run`."""
    folder = tmp_path_factory.mktemp("pairwise")
    pairs = folder / "easy.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in easy_pairs(320)))
    training = {
        "base": uri(save_preference_model(folder / "base")),
        "data": [{"name": "easy", **uri(pairs)}],
        "optimization": {"learningRate": 5e-3, "globalBatchSize": 32, "epochs": 12, "gradientCheckpointing": False},
        "maxLength": 192,
        "heldOut": {"fraction": 0.2},
        "cleaning": {"dropDuplicates": True},
    }
    reward = {"type": "Pairwise", "pairwise": {"train": training}}
    return run_whole_chain(spec_of_world(world, reward=reward, train=real_run.spec.train.to_wire()), folder, fork_server)


def sealed(run: RealRun, stage: StageName, iteration: int | None = None) -> ArtifactRef:
    return present(run.result(stage, iteration).artifact, str(stage))


def rows_of(run: RealRun, stage: StageName, iteration: int | None = 1) -> list[dict[str, Any]]:
    folder = open_artifact(open_store(run.storage), sealed(run, stage, iteration)).cached(run.folder / "fetched")
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, sorted(folder.rglob("*.parquet")))).to_pylist()
    return found


def test_it_learns_what_its_pairs_say_and_its_labeler_knows_it(trained_run: RealRun) -> None:
    store = open_store(trained_run.storage)
    artifact = open_artifact(store, sealed(trained_run, StageName.REWARD))
    accuracy = trained_run.result(StageName.REWARD, None).metrics[Metric.HELD_OUT_REWARD_ACCURACY]
    figures = json.loads(artifact.read("held_out.json"))
    assert figures["accuracy"] == accuracy.to_wire()
    assert accuracy.value > 0.9, "it was trained on other tokens than it is asked by, or on other answers"
    assert artifact.manifest.counts["pairsHeldOut"] == figures["pairs"]
    labeler = PairwiseLabeler.load(artifact.cached(trained_run.folder / "fetched"))

    def better(good: str, bad: str) -> float:
        [found] = labeler.compare([(Response([user("3 + 999")], good), Response([user("3 + 999")], bad))])
        return found

    assert better("4 1", "5 0") > 0.8
    assert better("4 0", "5 1") < 0.2


def test_its_questions_are_prepared_by_preflight_under_its_own_paths(trained_run: RealRun) -> None:
    assert {"reward.pairwise.train.base", "reward.pairwise.train.data/easy"} <= trained_run.resolved.keys()
    store = open_store(trained_run.storage)
    manifest = open_artifact(store, sealed(trained_run, StageName.REWARD)).manifest
    tokens = present(find_artifact(store, ArtifactKind.TOKENS, manifest.config["tokens"]), "its tokens")
    assert tokens.manifest.config["orders"] == "Drawn"
    assert tokens.manifest.rows == manifest.rows == manifest.counts["pairsRead"] - manifest.counts["pairsHeldOut"]


def test_labels_are_shares_by_the_model_that_was_trained(trained_run: RealRun) -> None:
    store = open_store(trained_run.storage)
    reward = sealed(trained_run, StageName.REWARD)
    assert reward in open_artifact(store, sealed(trained_run, StageName.LABEL, 1)).manifest.inputs
    sampled: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(trained_run, StageName.SAMPLE):
        sampled.setdefault(row["prompt_id"], []).append(row)
    labels = rows_of(trained_run, StageName.LABEL)
    assert labels
    labeler = PairwiseLabeler.load(open_artifact(store, reward).cached(trained_run.folder / "fetched"))
    for label in labels[:3]:
        rows = sorted(sampled[label["prompt_id"]], key=lambda row: row["completion_index"])
        expected = labeler.score([Response(row["messages"], row["text"]) for row in rows])
        assert label["scores"] == pytest.approx(expected, abs=1e-5)
    assert (None, StageName.FINALIZE) in trained_run.results
