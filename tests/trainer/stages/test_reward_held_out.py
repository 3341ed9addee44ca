"""A reward model that is trained in the run is measured by pairs that it was never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_api.metrics import Metric
from rlhf_api.resource.data import DataSource
from rlhf_api.resource.labeler import RewardHeldOut
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import RewardWork
from rlhf_api.words import ArtifactKind
from rlhf_store import open_artifact, open_store
from rlhf_trainer.data.examples import Examples
from rlhf_trainer.data.sources import resolve_revision
from rlhf_trainer.evaluation.comparisons import comparison_figures, scored_pairs
from rlhf_trainer.labelers.bradley_terry import BradleyTerryLabeler
from rlhf_trainer.training.prepared.artifact import EXAMPLES_FILE, HELD_OUT_FILE, prepared
from rlhf_trainer.training.prepared.recipe import Recipe
from support.stages import config_of, context_of, run_stage


def work_of(world: Path, storage: Storage, held_out: RewardHeldOut) -> RewardWork:
    data = DataSource(name="preferences", uri=f"file://{world}/preferences.parquet")
    return RewardWork.model_validate(
        {
            "base": {"model": {"source": {"uri": f"file://{world}/model"}}, "dtype": "float32"},
            "data": [data.model_copy(update={"revision": resolve_revision(data, storage)}).to_wire()],
            "optimization": {"learningRate": 1e-3, "globalBatchSize": 8, "maxSteps": 6},
            "maxLength": 96,
            "minMargin": 0.0,
            "deepspeed": {},
            "heldOutPairs": held_out.to_wire(),
        }
    )


@pytest.mark.engine
def test_a_trained_reward_model_tells_how_good_it_is_on_pairs_that_it_has_not_seen(
    world: Path, storage: Storage, tmp_path: Path
) -> None:
    work = work_of(world, storage, RewardHeldOut(fraction=0.25))
    config = config_of(work, storage, iteration=None)
    done = run_stage(config, tmp_path / "stage")
    assert done.code == 0, done.log
    assert done.result is not None
    assert done.result.artifact is not None
    store = open_store(storage)
    sealed = open_artifact(store, done.result.artifact)
    figures = json.loads(sealed.read("held_out.json"))
    accuracy = done.result.metrics[Metric.HELD_OUT_REWARD_ACCURACY]
    assert figures["accuracy"] == accuracy.to_wire()
    assert accuracy.lower is not None
    assert accuracy.upper is not None
    assert accuracy.lower <= accuracy.value <= accuracy.upper
    assert [part["name"] for part in figures["subsets"]] == ["preferences"]
    assert sum(part["pairs"] for part in figures["lengths"]) == figures["pairs"] == sealed.manifest.counts["pairsHeldOut"]
    # What it tells is what its export says of the pairs that lie in the store, which is found and not made again.
    again = context_of(config, tmp_path / "again")
    from rlhf_trainer.models.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(world / "model", None, [], trust_remote_code=False, classifier=True)
    found = prepared(again, Recipe.of(work, config.seed), vocabulary, lambda: None)
    assert found.ref is not None
    assert found.ref.kind is ArtifactKind.TOKENS
    assert found.held_out is not None
    assert (found.file.name, found.held_out.name) == (EXAMPLES_FILE, HELD_OUT_FILE)
    assert found.file.parent == found.held_out.parent
    labeler = BradleyTerryLabeler.load(sealed.cached(tmp_path / "fetched"))
    told = comparison_figures(scored_pairs(found.held_out, labeler))
    assert told.accuracy.value == pytest.approx(accuracy.value, abs=1e-6)
    trained, held = Examples(found.file), Examples(found.held_out)
    assert len(trained) + len(held) == pq.read_metadata(world / "preferences.parquet").num_rows - _dropped(sealed.manifest.counts)
    assert not {tuple(each.prompt) for each in trained} & {tuple(each.prompt) for each in held}
    assert pa.ipc.open_file(str(found.held_out)).schema.names[-2:] == ["asked", "subset"]


def _dropped(counts: dict[str, int]) -> int:
    return sum(counts.get(name, 0) for name in ("pairsEqual", "pairsTied", "pairsOverlong", "pairsBelowMargin"))
