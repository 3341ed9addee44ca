"""What is on disk of an attempt is what a new supervisor reads."""

from __future__ import annotations

import resource
from datetime import timedelta
from pathlib import Path

import pytest

from rlhf_api.words import StageName
from rlhf_operator.core.actions import Topology
from rlhf_operator.core.observed import PodState
from rlhf_operator.local import LocalState, StateUnusable
from rlhf_operator.local.folder.records import PodRecord, read_records
from support.local_records import NOW, record_of


@pytest.mark.parametrize(
    ("iteration", "topology", "limit"), [(None, Topology.SINGLE, None), (1, Topology.GANG, None), (1, Topology.SHARDED, 2)]
)
def test_a_record_is_read_as_it_was_saved(tmp_path: Path, iteration: int | None, topology: Topology, limit: int | None) -> None:
    pod = PodRecord(uid="3", index=0, state=PodState.RUNNING, created_at=NOW)
    record = record_of(pod, iteration=iteration, topology=topology, backoff_limit_per_index=limit)
    (tmp_path / "train-1-1").mkdir()
    record.save(tmp_path / "train-1-1")
    assert read_records(tmp_path) == {tmp_path / "train-1-1": record}


def test_a_shard_that_waits_for_its_turn_is_no_pod_that_cannot_start() -> None:
    states = (PodState.SUCCEEDED, PodState.RUNNING, PodState.PENDING)
    pods = [PodRecord(uid=str(index), index=index, state=state, created_at=NOW) for index, state in enumerate(states)]
    record = record_of(*pods, iteration=1, topology=Topology.SHARDED)
    assert [pod.index for pod in record.observed(deleting=False).pods] == [0, 1]


def test_the_process_that_failed_first_is_known_from_the_record(tmp_path: Path) -> None:
    """Its peers fail after it, by SIGTERM, and write last."""
    state = LocalState(tmp_path)
    ends = {0: (PodState.FAILED, 3), 1: (PodState.FAILED, 2), 2: (PodState.SUCCEEDED, 1)}
    pods = [
        PodRecord(uid=str(index), index=index, state=end, created_at=NOW, finished_at=NOW + timedelta(seconds=after))
        for index, (end, after) in ends.items()
    ]
    folder = state.attempt_folder("tiny", 1, StageName.SAMPLE, 1)
    folder.mkdir(parents=True)
    assert state.first_failure("tiny", 1, StageName.SAMPLE, 1) is None
    record_of(*pods, stage=StageName.SAMPLE, iteration=1, topology=Topology.SHARDED, completions=3).save(folder)
    assert state.first_failure("tiny", 1, StageName.SAMPLE, 1) == 1


def test_a_full_disk_says_what_to_do_and_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    record = record_of(topology=Topology.SINGLE)
    record.save(tmp_path)
    before = (tmp_path / "attempt.json").read_bytes()
    # A file system that is full for whoever writes more than this.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
    try:
        with pytest.raises(StateUnusable, match=r"attempt\.json.*free some space"):
            record.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["attempt.json"]
    assert (tmp_path / "attempt.json").read_bytes() == before
