"""What is on disk of an attempt is what a new supervisor reads."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlhf_api.words import StageName
from rlhf_operator.core.actions import Topology
from rlhf_operator.core.observed import PodState
from rlhf_operator.local.records import AttemptRecord, PodRecord, read_records

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("iteration", "topology", "limit"), [(None, Topology.SINGLE, None), (1, Topology.GANG, None), (1, Topology.SHARDED, 2)]
)
def test_a_record_is_read_as_it_was_saved(tmp_path: Path, iteration: int | None, topology: Topology, limit: int | None) -> None:
    record = AttemptRecord(
        name="tiny-i1-train-1",
        uid="1",
        run_uid="2",
        iteration=iteration,
        stage=StageName.TRAIN,
        attempt=1,
        resolving=False,
        created_at=NOW,
        topology=topology,
        completions=1,
        backoff_limit_per_index=limit,
        infrastructure_base=0,
        application_base=0,
        pods=(PodRecord(uid="3", index=0, state=PodState.RUNNING, created_at=NOW),),
    )
    (tmp_path / "train-1-1").mkdir()
    record.save(tmp_path / "train-1-1")
    assert read_records(tmp_path) == {tmp_path / "train-1-1": record}
