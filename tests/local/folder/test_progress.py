"""What stages say of their progress, summed over shards; whatever stands in their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf_operator.core.actions import Topology
from rlhf_operator.local.folder.progress import progress_file, read_progress
from support.local_records import record_of


def test_shards_are_summed(tmp_path: Path) -> None:
    for index, done in enumerate((3, 8)):
        said = {"done": done, "total": 8, "unit": "prompts", "detail": ""}
        progress_file(tmp_path, index).write_text(json.dumps(said))
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.done, progress.total, progress.shards_done, progress.shards) == (11, 16, 1, 2)


@pytest.mark.parametrize(("topology", "shards", "total"), [(Topology.SHARDED, 4, None), (Topology.GANG, 2, 16)])
def test_shards_that_have_not_begun_are_counted_and_no_total_is_made_up(
    tmp_path: Path, topology: Topology, shards: int, total: float | None
) -> None:
    record_of(topology=topology, iteration=1, completions=4).save(tmp_path)
    for index in range(2):
        progress_file(tmp_path, index).write_text(json.dumps({"done": 8, "total": 8, "unit": "prompts"}))
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.done, progress.total, progress.shards_done, progress.shards) == (16, total, 2, shards)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"done": 1, "total": ""}',
        '{"done": {}}',
        '{"done": NaN, "total": 2}',
        '{"done": 1, "total": Infinity}',
        f'{{"done": {"9" * 400}}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_damaged_counts_as_not_written(tmp_path: Path, text: str) -> None:
    """It is for display only, and must not end who displays it."""
    progress_file(tmp_path, 0).write_text(text)
    assert read_progress(tmp_path) is None
