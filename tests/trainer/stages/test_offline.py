"""D_off through a whole run of real stages: what is trained on of it, under which log-probs, is what others make of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_api.stage import ReferenceWork, StageResult, TrainWork
from rlhf_api.words import ArtifactKind, StageName
from rlhf_store import open_artifact, open_store
from rlhf_trainer.data.examples import Example, Examples
from rlhf_trainer.data.preferences import Limits
from rlhf_trainer.training.prepared.artifact import EXAMPLES_FILE, prepared_offline
from support.plain_torch import completion_logp
from support.stages import ForkServer, RealRun, context_of, run_whole_chain, spec_of_world

ROWS = 40


@pytest.fixture(scope="module")
def rows(world: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(world / "preferences.parquet").slice(0, ROWS).to_pylist()
    return found


@pytest.fixture(scope="module")
def offline_run(world: Path, real_run: RealRun, fork_server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    """As `real_run`, whose stages before the reference it finds in the store."""
    folder = tmp_path_factory.mktemp("offline")
    pq.write_table(pq.read_table(world / "preferences.parquet").slice(0, ROWS), folder / "offline.parquet")
    offline = [{"name": "outside", "uri": f"file://{folder}/offline.parquet"}]
    train = real_run.spec.train.to_wire() | {"data": {"offline": offline}}
    return run_whole_chain(spec_of_world(world, train=train), folder / "run", fork_server)


def fetched(run: RealRun, stage: StageName, iteration: int | None = 1) -> Path:
    result: StageResult = run.result(stage, iteration)
    assert result.artifact is not None
    return open_artifact(open_store(run.storage), result.artifact).cached(run.folder / "fetched")


def offline_examples(run: RealRun) -> list[Example]:
    config = run.config(StageName.TRAIN)
    assert isinstance(config.work, TrainWork)
    assert config.work.offline is not None
    found = prepared_offline(context_of(config, run.folder / "prepared"), config.work.offline, Limits.of(config.work))
    assert found.ref is not None, "preflight has sealed it"
    assert found.ref.kind is ArtifactKind.TOKENS
    assert found.file.name == EXAMPLES_FILE
    return list(Examples(found.file))


@pytest.mark.engine
def test_its_ids_are_those_of_transformers_and_each_answer_ends_as_it_is_sampled(
    offline_run: RealRun, rows: list[dict[str, Any]], tokenizer: Any
) -> None:
    examples = offline_examples(offline_run)
    assert len(examples) == ROWS
    for row, example in zip(rows, examples, strict=True):
        asked = tokenizer.apply_chat_template(row["chosen"][:-1], add_generation_prompt=True, tokenize=True, return_dict=False)
        assert list(example.prompt) == asked
        for side, ids in zip(("chosen", "rejected"), example.completions, strict=True):
            whole = tokenizer.apply_chat_template(row[side], tokenize=True, return_dict=False)
            assert [*asked, *ids] == whole[: len(asked) + len(ids)]
            assert ids[-1] == tokenizer.eos_token_id
        assert example.margin == row["chosen_score"] - row["rejected_score"]


@pytest.mark.engine
def test_its_log_probs_are_those_of_pi_0(offline_run: RealRun) -> None:
    found = pq.read_table(fetched(offline_run, StageName.REFERENCE) / "d000-00000-of-00001.parquet").to_pylist()
    model = AutoModelForCausalLM.from_pretrained(str(fetched(offline_run, StageName.SFT, None)), dtype=torch.float32)
    for row, example in zip(found, offline_examples(offline_run), strict=True):
        with torch.no_grad():
            logps = [float(completion_logp(model, example.prompt, ids)) for ids in example.completions]
        assert [row["chosen_logps"], row["rejected_logps"]] == pytest.approx(logps, abs=1e-3)


@pytest.mark.engine
def test_training_reads_it_beside_the_runs_own_pairs(offline_run: RealRun, real_run: RealRun) -> None:
    before, now = (run.result(StageName.TRAIN).counts for run in (real_run, offline_run))
    assert now["pairsTrained"] == before["pairsTrained"] + ROWS
    assert (now["offline/pairsRead"], now["pairsRead"]) == (ROWS, before["pairsRead"])
    for stage in (StageName.SAMPLE, StageName.LABEL):
        assert offline_run.result(stage).artifact == real_run.result(stage).artifact
    reference = offline_run.config(StageName.REFERENCE).work
    assert isinstance(reference, ReferenceWork)
    assert reference.offline == offline_run.config(StageName.TRAIN).work.offline  # type: ignore[union-attr]
