"""Where people are the labeler there is nothing to load, and nothing to find wrong with them."""

from __future__ import annotations

from pathlib import Path

from rlhf_api.resource.storage import Storage
from support.preflights import run


def test_people_need_no_model_and_resolve_to_nothing(world: Path, storage: Storage, tmp_path: Path) -> None:
    found = run(world, storage, tmp_path, reward={"type": "Human", "human": {"pairsPerPrompt": 2}})
    assert [path for path in found.resolved if path.startswith("reward")] == []
