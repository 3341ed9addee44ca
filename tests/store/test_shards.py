"""A shard that is committed is not redone, and whoever sees all shards seals."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf_api.words import StageName
from rlhf_store import (
    ArtifactWriter,
    Corrupted,
    Sealed,
    Store,
    commit_shard,
    committed_shards,
    find_artifact,
    open_artifact,
    remove_shards,
)
from support.artifacts import FINGERPRINT, KIND


def test_whoever_sees_all_shards_seals_them_where_they_lie(store: Store, tmp_path: Path) -> None:
    assert committed_shards(store, KIND, FINGERPRINT, 3) == {}
    sealed = [_work(store, index) for index in (2, 0, 1)]

    assert [one is not None for one in sealed] == [False, False, True]
    found = find_artifact(store, KIND, FINGERPRINT)
    assert found is not None
    assert found.manifest.rows == 3
    folder = open_artifact(store, found.ref).fetch(tmp_path / "fetched")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        f"part-{index}": f"{index}".encode() for index in range(3)
    }
    assert all(entry.key.startswith("shards-3/") for entry in found.manifest.files)


def test_a_record_keeps_rows_and_counts(store: Store) -> None:
    commit_shard(store, KIND, FINGERPRINT, 1, 0, {"part-0": b"0"}, rows=7, counts={"dropped": 2})

    record = committed_shards(store, KIND, FINGERPRINT, 1)[0]

    assert (record.rows, record.counts) == (7, {"dropped": 2})


def test_of_two_workers_on_one_shard_the_first_wins(store: Store, tmp_path: Path) -> None:
    """A pod that was lost may still run while its replacement works."""
    first = commit_shard(store, KIND, FINGERPRINT, 1, 0, {"part-0": b"first"})
    second = commit_shard(store, KIND, FINGERPRINT, 1, 0, {"part-0": b"second"})

    assert second == first
    sealed = _seal(store, 1)
    assert (open_artifact(store, sealed.ref).fetch(tmp_path / "fetched") / "part-0").read_bytes() == b"first"


def test_another_number_of_shards_starts_clean(store: Store) -> None:
    commit_shard(store, KIND, FINGERPRINT, 2, 1, {"part-1": b"1"})

    assert committed_shards(store, KIND, FINGERPRINT, 20) == {}
    assert committed_shards(store, KIND, FINGERPRINT, 1) == {}
    assert list(committed_shards(store, KIND, FINGERPRINT, 2)) == [1]


def test_shards_that_are_removed_are_redone(store: Store, tmp_path: Path) -> None:
    commit_shard(store, KIND, FINGERPRINT, 2, 0, {"part-0": b"old"})
    commit_shard(store, KIND, FINGERPRINT, 20, 0, {"part-0": b"of another split"})

    remove_shards(store, KIND, FINGERPRINT, 2)

    assert committed_shards(store, KIND, FINGERPRINT, 2) == {}
    assert list(committed_shards(store, KIND, FINGERPRINT, 20)) == [0]
    for index in range(2):
        commit_shard(store, KIND, FINGERPRINT, 2, index, {f"part-{index}": b"new"})
    sealed = _seal(store, 2)
    # Of a worker that is late; what is sealed stays whole.
    remove_shards(store, KIND, FINGERPRINT, 2)
    fetched = open_artifact(store, sealed.ref).fetch(tmp_path / "fetched")
    assert [path.read_bytes() for path in sorted(fetched.iterdir())] == [b"new", b"new"]


def test_a_shard_without_rows_is_a_shard(store: Store) -> None:
    commit_shard(store, KIND, FINGERPRINT, 1, 0, {})

    assert committed_shards(store, KIND, FINGERPRINT, 1)[0].files == []


def test_files_of_one_name_in_two_shards_are_refused(store: Store) -> None:
    for index in range(2):
        commit_shard(store, KIND, FINGERPRINT, 2, index, {"same": f"{index}".encode()})

    with pytest.raises(ValueError, match="same"):
        _seal(store, 2)


def test_a_damaged_record_is_no_shard_and_says_so(store: Store) -> None:
    store.put(f"{KIND}/{FINGERPRINT}/shards-1/00000.json", b"{")

    with pytest.raises(Corrupted, match=r"shards-1/00000\.json"):
        committed_shards(store, KIND, FINGERPRINT, 1)


def _work(store: Store, index: int) -> Sealed | None:
    commit_shard(store, KIND, FINGERPRINT, 3, index, {f"part-{index}": f"{index}".encode()}, rows=1)
    return _seal(store, 3) if len(committed_shards(store, KIND, FINGERPRINT, 3)) == 3 else None


def _seal(store: Store, shards: int) -> Sealed:
    records = committed_shards(store, KIND, FINGERPRINT, shards)
    writer = ArtifactWriter(store, KIND, FINGERPRINT)
    writer.add_shards(records)
    return writer.seal(stage=StageName.SAMPLE, rows=sum(record.rows for record in records.values()))
