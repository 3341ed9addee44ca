"""A person who browses the bucket finds everything of a run by name."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf_api.stage import RunRef, StageResult
from rlhf_api.words import StageName
from rlhf_store import Pointer, Store, log_key, upload_log, write_pointer
from support.artifacts import keys, seal

RUN = RunRef(namespace="research", name="summaries", uid="0000-1111")


def test_a_pointer_names_the_artifact_of_a_stage(store: Store) -> None:
    sealed = seal(store, {"a.txt": b"A"})
    write_pointer(store, RUN, 2, StageName.SAMPLE, StageResult(stage=StageName.SAMPLE, artifact=sealed.ref))

    data = store.get("runs/research/summaries/0000-1111/iteration-2/sample.json")

    pointer = Pointer.model_validate_json(data)
    assert pointer.url == f"{store.url}/samples/{sealed.ref.fingerprint}"
    assert pointer.result.artifact == sealed.ref
    assert json.loads(data)["run"] == {"namespace": "research", "name": "summaries", "uid": "0000-1111"}


def test_stages_of_the_run_lie_under_run_and_the_newest_attempt_counts(store: Store) -> None:
    for attempt in (1, 2):
        write_pointer(store, RUN, None, StageName.SFT, StageResult(stage=StageName.SFT, attempt=attempt))

    assert keys(store) == ["runs/research/summaries/0000-1111/run/sft.json"]
    assert Pointer.model_validate_json(store.get(keys(store)[0])).result.attempt == 2


def test_logs_lie_beside_the_pointers(store: Store, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a line\n")
    upload_log(store, RUN, 1, StageName.SAMPLE, 3, 0, tmp_path / "log")
    upload_log(store, RUN, None, StageName.SFT, 1, None, tmp_path / "log")

    folder = "runs/research/summaries/0000-1111"
    assert keys(store) == [f"{folder}/iteration-1/logs/sample-3-0.log", f"{folder}/run/logs/sft-1.log"]
    assert log_key(RUN, None, StageName.SFT, 1) in keys(store)
