"""rlhfctl logs of pods that are gone: what the store has of them, and what is said where it has nothing or cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.conventions.log_names import LogName
from rlhf_api.resource.storage import Storage
from rlhf_api.stage import RunRef
from rlhf_store import log_key, open_store
from rlhfctl.exits import Exit
from rlhfctl.results import store
from support import example_runs
from support.cluster_runs import STORE, ClusterRuns

pytestmark = [pytest.mark.cluster, pytest.mark.s3]


class Kept:
    """Puts logs of one run into its store, as its pods do."""

    def __init__(self, run: dict[str, Any], storage: Storage) -> None:
        metadata = run["metadata"]
        self.run = RunRef(namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
        self.store = open_store(storage)

    def put(self, name: str, text: str, number: int = 1) -> None:
        parsed = LogName.parse(name)
        assert parsed is not None
        self.store.put(log_key(self.run, parsed, number), text.encode())

    def url(self, name: str = "") -> str:
        return f"{self.store.url}/runs/{self.run.namespace}/{self.run.name}/{self.run.uid}/logs" + (f"/{name}" if name else "")


def _words(text: str) -> str:
    return " ".join(text.split())


def test_logs_of_pods_that_are_gone_come_from_the_store_before_those_of_pods(runs: ClusterRuns, s3_storage: Storage) -> None:
    kept = Kept(runs.create(example_runs.failed, "broken", storage=s3_storage.to_wire()), s3_storage)
    kept.put("preflight-0-1", "store is writable")
    kept.put("sft-0-1", "loss 0.9\nno space left\n")
    kept.put("sft-0-2", "no space left again\n")
    pod = runs.pod("sft", run="broken", attempt=3, log="no space left at all\n")
    runs.start(pod)
    runs.end(pod)
    done = runs.rlhfctl("logs", "broken")
    assert done.code == 0
    assert done.out == "store is writable\nloss 0.9\nno space left\nno space left again\nno space left at all\n"
    assert done.err.splitlines() == ["==> preflight, attempt 1 <==", *(f"==> sft, attempt {number} <==" for number in (1, 2, 3))]
    assert runs.rlhfctl("logs", "broken", "--stage", "sft", "--attempt", "2").out == "no space left again\n"


def test_a_run_whose_pods_are_all_gone_has_all_of_its_logs(runs: ClusterRuns, s3_storage: Storage) -> None:
    wire = runs.create(example_runs.finished, "tiny", storage=s3_storage.to_wire(), sample={"shards": 11})
    kept = Kept(wire, s3_storage)
    for index in (0, 2, 10):
        kept.put(f"sample-2-1-{index}", f"shard {index} is sealed\n")
    kept.put("sample-2-1-2", "and was begun again\n", number=2)
    kept.put("sample-2-10-0", "of no attempt that the status tells of\n")
    done = runs.rlhfctl("logs", "tiny", "--stage", "sample", "--iteration", "2")
    assert done.out.splitlines() == [
        "shard 0 | shard 0 is sealed",
        "shard 2 | shard 2 is sealed",
        "shard 2 | and was begun again",
        "shard 10 | shard 10 is sealed",
    ]
    assert done.err == "==> sample, iteration 2, attempt 1 <==\n"


def test_the_log_of_a_shard_that_was_replaced_comes_from_the_store_and_that_of_its_successor_from_the_pod(
    runs: ClusterRuns, s3_storage: Storage
) -> None:
    kept = Kept(runs.create(example_runs.at_work, "tiny", storage=s3_storage.to_wire(), sample={"shards": 2}), s3_storage)
    kept.put("sample-2-1-1", "told to go\n")
    kept.put("sample-2-1-1", "begun again\n", number=2)
    for index, failed_before in ((0, 0), (1, 1)):
        pod = runs.pod("sample", iteration=2, index=index, failed_before=failed_before, log="begun again\n")
        runs.start(pod)
    done = runs.rlhfctl("logs", "tiny", "--stage", "sample", "--iteration", "2")
    assert done.out == "shard 1 | told to go\nshard 0 | begun again\nshard 1 | begun again\n"


def test_who_follows_is_told_first_what_is_gone(runs: ClusterRuns, s3_storage: Storage) -> None:
    kept = Kept(runs.create(example_runs.failed, "tiny", storage=s3_storage.to_wire()), s3_storage)
    runs.set_status(example_runs.failed("tiny", STORE).to_wire()["status"] | {"phase": "Running"})
    kept.put("sft-0-1", "no space left\n")
    pod = runs.pod("sft", attempt=3, log="loss 0.7\n")
    runs.start(pod)
    with runs.following("logs", "tiny", "-f", "--stage", "sft") as logs:
        logs.says("loss 0.7")
        runs.end(pod)
        runs.set_status(example_runs.failed("tiny", STORE).to_wire()["status"])
        done = logs.ended()
    assert done.out == "no space left\nloss 0.7\n"
    assert "gone with their pods: sft-0-2." in _words(done.err)


def test_what_neither_a_pod_nor_the_store_has_is_said(runs: ClusterRuns, s3_storage: Storage) -> None:
    kept = Kept(runs.create(example_runs.failed, "broken", storage=s3_storage.to_wire()), s3_storage)
    kept.put("sft-0-2", "no space left\n")
    done = runs.rlhfctl("logs", "broken", "--stage", "sft")
    assert (done.code, done.out) == (0, "no space left\n")
    assert f"gone with their pods: sft-0-1, sft-0-3. {kept.url()} has no log of them" in _words(done.err)
    none = runs.rlhfctl("logs", "broken", "--stage", "preflight")
    assert none.code == Exit.NOT_FOUND
    assert "it has sft-0-2" in _words(none.err)


def test_a_log_comes_from_a_bucket_with_the_user_s_own_credentials(
    runs: ClusterRuns, s3_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(runs.create(example_runs.failed, "broken", storage=s3_storage.to_wire()), s3_storage)
    kept.put("preflight-0-1", "store is writable\n")
    found = runs.rlhfctl("logs", "broken", "--stage", "preflight")
    assert (found.code, found.out) == (0, "store is writable\n"), found.err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    pod = runs.pod("sft", run="broken", attempt=3, log="no space left\n")
    runs.start(pod)
    refused = runs.rlhfctl("logs", "broken")
    assert (refused.code, refused.out) == (0, "no space left\n")
    said = _words(refused.err)
    assert "gone with their pods: preflight-0-1, sft-0-1, sft-0-2. Their logs cannot be read from the store." in said
    assert f"{kept.url()}/: there are no credentials for it." in said
    assert "the credentials of your own environment (AWS_PROFILE, AWS_ACCESS_KEY_ID and so on)" in said


def test_a_store_that_is_away_is_said_to_be(runs: ClusterRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.5)
    away = {"url": "s3://models/run", "endpointURL": "http://127.0.0.1:9", "region": "us-east-1"}
    runs.create(example_runs.failed, "broken", storage=away)
    done = runs.rlhfctl(
        "logs", "broken", "--stage", "preflight", env={"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"}
    )
    assert done.code == Exit.NOT_FOUND
    assert "gone with their pods: preflight-0-1. Their logs cannot be read from the store." in _words(done.err)
    assert "the store is away" in _words(done.err)
    assert "hidden" not in done.err
