"""A stage or rlhfctl is killed, or the store goes away for a while: a clean resume, nothing lost, no finished work done again.

What was done is counted from the access log of the S3 server. These four belong to `make test`; test_every_stage.py has the rest.
"""

from __future__ import annotations

import signal
import subprocess

import pytest

from rlhf_api.words import Phase
from support import processes
from support.kills import assert_resumed, kill_and_finish, read_checkpoints
from support.mini import CHAIN, MakeCase, SealedRun, stages_of, stop
from support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.s3, pytest.mark.timeout(1500)]
UP_TO_SAMPLE = CHAIN[: CHAIN.index("sample-1")]
UP_TO_TRAIN = CHAIN[: CHAIN.index("train-1")]


def test_training_that_is_told_to_stop_goes_on_from_its_checkpoint(case: MakeCase, sealed: SealedRun) -> None:
    killed = kill_and_finish(case, "train-1", signal.SIGTERM)
    assert_resumed(killed, sealed, "train-1", signal.SIGTERM)
    assert read_checkpoints(killed, sealed.artifacts["train-1"].partition("/")[2])
    assert "a checkpoint holds what was learnt" in killed.log("train-1")


def test_a_killed_sampler_redoes_only_its_own_shard(case: MakeCase, sealed: SealedRun) -> None:
    killed = kill_and_finish(case, "sample-1", signal.SIGKILL, index=1)
    assert_resumed(killed, sealed, "sample-1", signal.SIGKILL, index=1)
    assert [pod.exit_code for pod in killed.pods("sample-1") if pod.index == 0] == [0]
    for shard in ("00000", "00001"):
        records = killed.put(f"{sealed.artifacts['sample-1']}/shards-2/{shard}.json")
        assert len(records) == 1, records
        data = killed.put(f"{sealed.artifacts['sample-1']}/shards-2/{shard}/")
        assert len(data) == 1, data


def test_rlhfctl_that_is_killed_leaves_nothing_behind_and_the_same_command_goes_on(case: MakeCase, sealed: SealedRun) -> None:
    one = case([stage for stage in CHAIN if stage != "train-1"])
    process = one.start()
    try:
        one.at_work("train-1", process, moment="world-2.json")
        process.kill()
        process.wait()
        wait_until(lambda: not processes.under(one.state), "the end of every process of the run", seconds=60)
        assert one.status().phase is Phase.RUNNING
        done = one.run()
    finally:
        stop(process)
    assert done.code == 0, done.out
    assert one.stage("train-1").application_retries == 0
    assert read_checkpoints(one, sealed.artifacts["train-1"].partition("/")[2])
    manifests = one.manifests()
    assert manifests.count(sealed.artifacts["train-1"]) == 1
    assert len(set(manifests)) == len(manifests)
    assert not {sealed.artifacts[stage] for stage in UP_TO_TRAIN} & set(manifests)


def test_a_store_that_is_away_for_30_seconds_costs_no_attempt(case: MakeCase, sealed: SealedRun) -> None:
    one = case([stage for stage in CHAIN if stage != "train-1"])
    process = one.start()
    try:
        one.at_work("train-1", process, moment="world-2.json")
        one.server.stop()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        one.server.start()
        done = one.ended(process)
    finally:
        stop(process)
        one.server.ensure_running()
    assert done.code == 0, done.out
    assert {name: stage.attempt for name, stage in stages_of(one.status()).items()} == dict.fromkeys(
        ["preflight-0", *CHAIN, "finalize-0"], 1
    )
    manifests = one.manifests()
    assert manifests.count(sealed.artifacts["train-1"]) == 1
    assert len(set(manifests)) == len(manifests)
