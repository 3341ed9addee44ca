"""Where people are the labeler there is nothing to load, and nothing to find wrong with them."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.resource.storage import Storage
from support.preflights import run
from support.stages import TINY


def test_people_need_no_model_and_resolve_to_nothing(world: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(world, storage, tmp_path, reward={"type": "Human", "human": {"pairsPerPrompt": 2}})
    assert [path for path in found.resolved if path.startswith("reward")] == []


def test_it_is_told_how_many_questions_an_iteration_asks(world: Path, storage: Storage, tmp_path: Path) -> None:
    human = {"type": "Human", "human": {"pairsPerPrompt": 3, "annotatorsPerPair": 2}}
    found = run(world, storage, tmp_path, reward=human)
    prompts = TINY.prompts_per_iteration
    assert found.counts["reward.questions"] == 3 * prompts
    assert found.counts["reward.answers"] == 6 * prompts
    [told] = [warning for warning in found.warnings if warning.startswith("reward:")]
    assert f"up to {3 * prompts} questions an iteration, each of 2 people, {3 * prompts} in all" in told


def test_where_nobody_is_asked_nothing_is_told_of_questions(world: Path, storage: Storage, tmp_path: Path) -> None:
    assert "reward.questions" not in run(world, storage, tmp_path).counts
