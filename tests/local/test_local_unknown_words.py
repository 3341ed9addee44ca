"""A run on one machine that a newer version wrote: it is left as it is, with its words, and can be deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_operator.local import StateUnusable, UnknownWords
from support.local_runs import LocalWorld

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Json = dict[str, Any]


@pytest.fixture
def world(tmp_path: Path) -> LocalWorld:
    """With a run that failed in its first stage: to run it again is to begin it anew, and to forget what it had."""
    world = LocalWorld(tmp_path)
    world.plan("preflight-0", "exit 64")
    world.run()
    return world


def status(world: LocalWorld, change: Callable[[Json], object]) -> None:
    _rewrite(world.state.run_folder("tiny") / "status.json", change)


def manifest(world: LocalWorld, change: Callable[[Json], object]) -> None:
    path = world.state.run_folder("tiny") / "run.yaml"
    fields = yaml.safe_load(path.read_text())
    change(fields)
    path.write_text(yaml.safe_dump(fields))


def attempt(world: LocalWorld, change: Callable[[Json], object]) -> None:
    [path] = world.state.run_folder("tiny").glob("attempts/*/attempt.json")
    _rewrite(path, change)


def _rewrite(path: Path, change: Callable[[Json], object]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def files(folder: Path) -> dict[str, bytes]:
    locks = {"lock", "edit-lock"}
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in locks}


@pytest.mark.parametrize(
    ("write", "change", "words"),
    [
        (status, lambda it: it.update(phase="Preparing"), "status.phase is 'Preparing'"),
        (status, lambda it: it["stages"][0].update(name="prepare"), r"status.stages\[0\].name is 'prepare'"),
        (status, lambda it: it.update(preparation={}), "status has a field 'preparation'"),
        (status, lambda it: it.update(format=7), "status.format is 7"),
        (manifest, lambda it: it["spec"]["policy"].update(dtype="float8"), "spec.policy.dtype is 'float8'"),
        (attempt, lambda it: it.update(stage="prepare"), r"stage of attempts/preflight-0-1/attempt.json is 'prepare'"),
        (attempt, lambda it: it["pods"][0].update(warmth=3), r"pods\[0\] of attempts/.* has a field 'warmth'"),
    ],
)
def test_no_file_of_it_changes_and_the_word_is_told_with_its_place(
    world: LocalWorld, write: Callable[..., None], change: Callable[[Json], object], words: str
) -> None:
    write(world, change)
    before = files(world.state.folder)
    with pytest.raises(UnknownWords, match=words) as caught:
        world.run()
    assert "run 'tiny' was written by another version" in str(caught.value)
    assert "or a newer one" in str(caught.value)
    assert files(world.state.folder) == before
    assert world.starts() == ["preflight-0"]


def test_what_is_damaged_is_not_called_another_version_s(world: LocalWorld) -> None:
    status(world, lambda it: it.update(iteration=-1))
    with pytest.raises(StateUnusable) as caught:
        world.state.load("tiny")
    assert not isinstance(caught.value, UnknownWords)


def test_it_can_be_deleted(world: LocalWorld) -> None:
    status(world, lambda it: it.update(phase="Preparing"))
    world.state.delete("tiny", NOW)
    assert world.state.names() == []
