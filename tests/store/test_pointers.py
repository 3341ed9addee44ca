"""A person who browses the bucket finds everything of a run by name."""

from __future__ import annotations

import json

from rlhf_api.stage import RunRef, StageResult
from rlhf_api.words import StageName
from rlhf_store import Pointer, Store, metrics_key, write_pointer
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


def test_the_metrics_of_a_training_at_work_lie_beside_its_pointers() -> None:
    folder = "runs/research/summaries/0000-1111/metrics"
    assert metrics_key(RUN, 2, StageName.TRAIN) == f"{folder}/train-2.jsonl"
    assert metrics_key(RUN, None, StageName.REWARD) == f"{folder}/reward-0.jsonl"
