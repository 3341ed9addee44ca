"""A pairwise preference model is looked at before anything runs: its class, its answers, and whether it can be asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlhf_api.resource.storage import Storage
from support.preflights import knowing, problems, run, uri
from support.tiny_models import save_preference_model


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_preference_model(tmp_path_factory.mktemp("preferences"))


def judged_by(folder: Path) -> dict[str, Any]:
    judge = {"type": "Pairwise", "pairwise": {"model": uri(folder)}}
    return {"evaluate": {"judge": judge, "against": ["Initial", "Previous"]}}


def test_it_is_resolved_and_nothing_is_wrong_with_it(world: Path, preferences: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(world, storage, tmp_path, **judged_by(preferences))
    assert "evaluate.judge.pairwise.model" in found.resolved
    found = run(world, storage, tmp_path, reward={"type": "Pairwise", "pairwise": {"model": uri(preferences)}})
    assert "reward.pairwise.model" in found.resolved


def test_a_model_that_cannot_answer_is_refused(world: Path, reward: Path, storage: Storage, tmp_path: Path) -> None:
    assert "ForCausalLM" in problems(world, storage, tmp_path, **judged_by(reward))
    told = problems(world, storage, tmp_path, **judged_by(world / "model"))
    assert "no tokens of their own for A and B" in told


def test_prompts_that_its_format_has_no_place_for_are_named(
    world: Path, preferences: Path, storage: Storage, tmp_path: Path
) -> None:
    world = knowing(world, tmp_path / "world", r"<\|system\|>")
    rows = pq.read_table(world / "prompts.parquet").to_pylist()
    for row in rows:
        row["messages"] = [{"role": "system", "content": "lion moon"}, *row["messages"]]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = judged_by(preferences) | {"prompts": {"source": uri(file), "perIteration": 24, "validation": {"size": 12}}}
    told = problems(world, storage, tmp_path, **changed)
    assert f"file://{file}: row " in told
    assert "as file://" in told
    assert "to compare answers: The format of pairwise preference models has no place for a turn of the system." in told


def test_positions_and_ids_are_those_of_its_own_tokenizer(world: Path, preferences: Path, storage: Storage, tmp_path: Path) -> None:
    copy = shutil.copytree(preferences, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaModel"]}))
    assert "LlamaModel" in problems(world, storage, tmp_path / "scratch", **judged_by(copy))


def trained(folder: Path, pairs: Path, **training: Any) -> dict[str, Any]:
    data = [{"name": "pairs", **uri(pairs)}]
    return {"type": "Pairwise", "pairwise": {"train": {"base": uri(folder), "data": data, "maxLength": 256, **training}}}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n} + 1", "chosen": "yes", "rejected": "no"} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("path", ["reward", "evaluate.judge"])
def test_questions_of_a_model_that_is_trained_are_prepared_and_pinned(
    world: Path, preferences: Path, storage: Storage, tmp_path: Path, pairs: Path, path: str
) -> None:
    labeler = trained(preferences, pairs, heldOut={"fraction": 0.3}, orders="Both")
    changes = {"reward": labeler} if path == "reward" else {"evaluate": {"judge": labeler}}
    found = run(world, storage, tmp_path, **changes)
    assert {f"{path}.pairwise.train.base", f"{path}.pairwise.train.data/pairs"} <= found.resolved.keys()
    stage = "reward" if path == "reward" else "judge"
    manifests = [json.loads(file.read_text()) for file in (tmp_path / "store" / "tokens").glob("*/manifest.json")]
    [made] = [manifest for manifest in manifests if manifest["stage"] == stage]
    assert made["config"]["orders"] == "Both"
    assert made["rows"] == 2 * (20 - made["counts"]["pairsHeldOut"])


def test_what_a_model_cannot_be_trained_from_or_on_is_told_with_its_field(
    world: Path, reward: Path, preferences: Path, storage: Storage, tmp_path: Path, pairs: Path
) -> None:
    assert "ForCausalLM" in problems(world, storage, tmp_path / "a", reward=trained(reward, pairs))
    told = problems(world, storage, tmp_path / "b", reward=trained(world / "model", pairs))
    assert "no tokens of their own for A and B" in told
    long = problems(world, storage, tmp_path / "c", reward=trained(preferences, pairs, maxLength=3072))
    assert "has 512 positions, and the maxLength of the preference model that is trained from it is 3072" in long
    none = problems(world, storage, tmp_path / "d", reward=trained(preferences, pairs, maxLength=8))
    assert "reward.pairwise.train.data: there is nothing to train on" in none
    assert "pairsOverlong 20, pairsRead 20" in none
