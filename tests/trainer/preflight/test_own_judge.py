"""A chat model that stages read to judge is looked at before anything runs: its class, its template, its room, its lineage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_api.resource.storage import Storage
from support.preflights import problems, run, uri
from support.stages import spec_of_world
from support.tiny_models import save_decided_judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_decided_judge(tmp_path_factory.mktemp("judge"))


def judged_by(folder: Path, **fields: Any) -> dict[str, Any]:
    return {"evaluate": {"judge": {"type": "Judge", "judge": {"model": {**uri(folder), **fields}}}}}


def changed(judge: Path, folder: Path, file: str, **fields: Any) -> Path:
    copy = shutil.copytree(judge, folder)
    path = copy / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))
    return copy


def test_it_is_resolved_and_what_it_will_be_asked_is_counted(world: Path, judge: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(world, storage, tmp_path, **judged_by(judge))
    assert "evaluate.judge.judge.model" in found.resolved
    assert found.counts["evaluate.judge.judgeRequests"] == 2 * (2 * 12 + 2 * 8)
    told = "\n".join(found.warnings)
    assert "nothing pins" not in told
    assert f"Where the judge file://{judge} comes from is unknown" in told
    sample = {**spec_of_world(world).sample.to_wire(), "completionsPerPrompt": 4}
    found = run(world, storage, tmp_path, reward=judged_by(judge)["evaluate"]["judge"], sample=sample)
    assert found.counts["reward.judgeRequests"] == 24 * 4 * 3 + 2 * 12


def test_a_model_that_cannot_be_asked_is_refused(world: Path, judge: Path, reward: Path, storage: Storage, tmp_path: Path) -> None:
    assert "ForCausalLM" in problems(world, storage, tmp_path / "class", **judged_by(reward))
    short = changed(judge, tmp_path / "short", "config.json", max_position_embeddings=1024)
    told = problems(world, storage, tmp_path / "positions", **judged_by(short))
    assert f"file://{short} has 1024 positions, and of a question about two responses of a word each it needs" in told
    other = changed(judge, tmp_path / "other", "config.json", architectures=["MysteryForCausalLM"])
    told = problems(world, storage, tmp_path / "scratch", **judged_by(other))
    assert "is MysteryForCausalLM, and vLLM, which reads the judge, has no such class" in told
    bare = shutil.copytree(judge, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert "has no chat template" in problems(world, storage, tmp_path / "template", **judged_by(bare))


def test_what_a_server_would_do_otherwise_is_said(world: Path, judge: Path, storage: Storage, tmp_path: Path) -> None:
    penal = changed(judge, tmp_path / "penal", "generation_config.json", repetition_penalty=1.05)
    found = run(world, storage, tmp_path, **judged_by(penal))
    assert "has repetition_penalty 1.05, which a server applies to greedy answers, too" in "\n".join(found.warnings)


def test_one_that_descends_from_the_training_reward_is_refused(
    world: Path, judge: Path, reward: Path, storage: Storage, tmp_path: Path
) -> None:
    trained = {"type": "BradleyTerry", "bradleyTerry": {"model": uri(reward)}}
    told = problems(world, storage, tmp_path, reward=trained, **judged_by(judge, base=f"file://{reward}/"))
    assert "descends from the training reward" in told
