"""An attempt goes on from the newest complete checkpoint of any attempt, and from nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_store import Checkpoints, Corrupted, Incomplete, NotFound, Store
from support.artifacts import FINGERPRINT, keys


@pytest.fixture
def checkpoints(store: Store) -> Checkpoints:
    return Checkpoints(store, FINGERPRINT)


def test_the_one_with_most_steps_is_the_newest(checkpoints: Checkpoints, tmp_path: Path) -> None:
    assert checkpoints.newest_complete() is None
    for name, step in [("step-9-attempt-1", 9), ("step-100-attempt-1", 100), ("step-50-attempt-2", 50)]:
        _save(checkpoints, tmp_path, name, step)

    newest = checkpoints.newest_complete()

    assert newest is not None
    assert newest.step == 100
    assert (checkpoints.fetch(newest, tmp_path / "fetched") / "rank-0").read_text() == "step-100-attempt-1"


def test_one_that_is_not_complete_is_not_found(checkpoints: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "rank-0").write_text("state")

    checkpoints.upload("step-1-attempt-1", tmp_path)

    assert checkpoints.newest_complete() is None


def test_the_parts_of_many_nodes_are_one_checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> None:
    entries = []
    for node in range(2):
        folder = tmp_path / f"node-{node}"
        folder.mkdir()
        (folder / f"rank-{node}").write_text(f"state of {node}")
        entries += checkpoints.upload("step-1-attempt-1", folder)
    record = checkpoints.complete("step-1-attempt-1", 1, entries)

    folder = checkpoints.fetch(record, tmp_path / "fetched")

    assert {path.name: path.read_text() for path in folder.iterdir()} == {"rank-0": "state of 0", "rank-1": "state of 1"}


def test_a_damaged_one_is_refused(checkpoints: Checkpoints, store: Store, tmp_path: Path) -> None:
    _save(checkpoints, tmp_path, "step-2-attempt-1", 2)
    damaged = checkpoints.newest_complete()
    assert damaged is not None
    store.put(f"checkpoint/{FINGERPRINT}/{damaged.files[0].key}", b"damage")

    with pytest.raises(Corrupted, match="step-2-attempt-1"):
        checkpoints.fetch(damaged, tmp_path / "fetched")


def test_one_that_lost_a_file_says_what_to_remove(checkpoints: Checkpoints, store: Store, tmp_path: Path) -> None:
    for step in (1, 2):
        _save(checkpoints, tmp_path, f"step-{step}-attempt-1", step)
    damaged = checkpoints.newest_complete()
    assert damaged is not None
    store.delete([f"checkpoint/{FINGERPRINT}/{damaged.files[0].key}"])

    record = f"checkpoint/{FINGERPRINT}/step-2-attempt-1.json"
    with pytest.raises(Incomplete, match=f"this file of checkpoint step-2-attempt-1 is gone. Remove {store.url}/{record} from"):
        checkpoints.fetch(damaged, tmp_path / "fetched")
    store.delete([record])
    earlier = checkpoints.newest_complete()
    assert earlier is not None
    assert earlier.step == 1
    # An attempt that came later has removed it meanwhile, and kept its own.
    with pytest.raises(NotFound) as raised:
        checkpoints.fetch(damaged, tmp_path / "fetched")
    assert not raised.value.configuration


def test_a_record_that_cannot_be_read_is_no_checkpoint(checkpoints: Checkpoints, store: Store, tmp_path: Path) -> None:
    _save(checkpoints, tmp_path, "step-1-attempt-1", 1)
    store.put(f"checkpoint/{FINGERPRINT}/step-2-attempt-1.json", b"{")

    newest = checkpoints.newest_complete()

    assert newest is not None
    assert newest.step == 1


def test_keeping_the_newest_removes_the_others_whole(checkpoints: Checkpoints, store: Store, tmp_path: Path) -> None:
    for step in range(1, 5):
        _save(checkpoints, tmp_path, f"step-{step}-attempt-1", step)

    checkpoints.keep_newest(2)

    assert {key.split("/")[2].removesuffix(".json") for key in keys(store)} == {"step-3-attempt-1", "step-4-attempt-1"}


def test_removing_all_leaves_nothing_of_any_attempt_and_touches_no_other_training(
    checkpoints: Checkpoints, store: Store, tmp_path: Path
) -> None:
    _save(checkpoints, tmp_path, "step-1-attempt-1", 1)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "rank-0").write_text("cut off")
    checkpoints.upload("step-2-attempt-2", tmp_path / "half")
    other = Checkpoints(store, "b" * 64)
    _save(other, tmp_path / "half", "step-3-attempt-1", 3)

    checkpoints.remove_all()

    assert {key.split("/")[1] for key in keys(store)} == {"b" * 64}
    checkpoints.remove_all()


def _save(checkpoints: Checkpoints, scratch: Path, name: str, step: int) -> None:
    folder = scratch / name
    folder.mkdir()
    (folder / "rank-0").write_text(name)
    checkpoints.complete(name, step, checkpoints.upload(name, folder))
