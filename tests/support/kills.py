"""One stage process of a run is killed in the midst of its work; what must be true afterwards."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from rlhf_api.words import Phase
from support import processes
from support.mini import CHAIN, Case, MakeCase, SealedRun, stop

#: When it is killed: once it has asked the store for a key with this in it. At once where nothing stands here.
MOMENTS: Mapping[str, str] = {
    # Written at every tenth step, so that many are left.
    "sft-0": "world-2.json",
    "reward-0": "world-2.json",
    "train-1": "world-2.json",
    # The weights: the engine or the labeler is about to load.
    "evaluate-0": "model.safetensors",
    "sample-1": "model.safetensors",
    "label-1": "model.safetensors",
    "reference-1": "model.safetensors",
    "evaluate-1": "model.safetensors",
}
#: Their pods are tried again within the attempt.
SHARDED = ("sample-1", "label-1", "reference-1")
TRAININGS = ("sft-0", "reward-0", "train-1")


def kill_and_finish(make: MakeCase, stage: str, number: signal.Signals, *, index: int = 0) -> Case:
    """A run that has everything but this stage's artifact; its process gets the signal; the run ends by itself."""
    case = make([other for other in CHAIN if other != stage])
    process = case.start()
    try:
        pid = case.at_work(stage, process, index=index, moment=MOMENTS.get(stage, ""))
        processes.kill(pid, number)
        done = case.ended(process)
    finally:
        stop(process)
    assert done.code == 0, done.out
    return case


def assert_resumed(case: Case, sealed: SealedRun, stage: str, number: signal.Signals, *, index: int = 0) -> None:
    """It was tried once more, for no fault of its own; what was there was not made again; each artifact was sealed once."""
    status = case.status()
    assert status.phase is Phase.SUCCEEDED
    pods = [pod for pod in case.pods(stage) if pod.index == index]
    assert [pod.exit_code for pod in pods] == [128 + number, 0]
    found = case.stage(stage)
    assert found.application_retries == 0
    assert found.attempt <= (1 if stage in SHARDED else 3)
    manifests = case.manifests()
    assert len(set(manifests)) == len(manifests), "an artifact was sealed twice"
    if stage in sealed.artifacts:
        assert sealed.artifacts[stage] in manifests
        before = [sealed.artifacts[other] for other in CHAIN[: CHAIN.index(stage)]]
        assert not set(before) & set(manifests), "finished work was done again"
    else:
        assert not manifests


def read_checkpoints(case: Case, fingerprint: str) -> list[str]:
    """What was read back of a training's checkpoints."""
    requests = case.server.requests(case.storage)
    return [r.key for r in requests if r.operation == "GetObject" and f"checkpoint/{fingerprint}/" in r.key and "/step-" in r.key]
