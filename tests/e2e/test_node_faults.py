"""Faults on a real node, in runs that must end as if nothing had been: nothing lost, nothing done twice.

Counted from the S3 server's access log, the Events, and the logs that the store keeps. `make e2e-faults`; with UPDATE_GOLDEN=1 the
table goes into docs/reliability.md.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from rlhf_api.words import Phase, Reason
from support.node_faults import (
    CHECKPOINT,
    PATIENCE_SECONDS,
    RANK,
    RESUMED,
    STAGE,
    TRAINING,
    at_work,
    cordoned,
    delete_job,
    delete_pod,
    evict,
    is_running,
    signal_process,
)
from support.node_installation import Installation, RunOnNode
from support.node_table import Table
from support.s3 import SECRET_FORMS
from support.waiting import wait_until

pytestmark = [pytest.mark.e2e_faults, pytest.mark.node, pytest.mark.timeout(7200)]
OUTAGE_SECONDS = 30.0
OPERATOR_KILLS = 20
#: Between two of them, drawn uniformly.
BETWEEN_KILLS_SECONDS = (5.0, 50.0)


@dataclass(frozen=True)
class Fault:
    what: str
    where: str
    """The stage that it happens to: `train-1`."""
    cause: Callable[[RunOnNode], None]
    pods: int
    """How many it had in the end; with those that looked an artifact up."""
    retries: int
    """Of the budget for infrastructure. A Job replaces a shard's pod itself: one that was killed costs its index's own limit."""


def no_room_for_the_next_pod(run: RunOnNode) -> None:
    pod = at_work(run, "sft", saying=TRAINING)
    with cordoned(run):
        delete_pod(run, pod)
        wait_until(lambda: Reason.UNSCHEDULABLE in json.dumps(run.run.status), "Unschedulable", seconds=300)


def job_deleted(run: RunOnNode) -> None:
    delete_job(run, at_work(run, "reward", saying=TRAINING))


def sampler_killed(run: RunOnNode) -> None:
    signal_process(at_work(run, "sample", iteration=1, index=1), signal.SIGKILL, STAGE)


def labeler_evicted(run: RunOnNode) -> None:
    evict(run, at_work(run, "label", iteration=1))


def away(component: str, run: RunOnNode, stage: str) -> None:
    at_work(run, stage, iteration=1)
    with run.installation.cluster.outage(component):
        time.sleep(OUTAGE_SECONDS)


def api_server_away(run: RunOnNode) -> None:
    away("kube-apiserver", run, "reference")


def rank_told_to_stop(run: RunOnNode) -> None:
    at_work(run, "train", iteration=1, saying=TRAINING)
    signal_process(at_work(run, "train", iteration=1, index=1), signal.SIGTERM, RANK)


def store_away(run: RunOnNode) -> None:
    away("s3", run, "evaluate")


def rank_killed(run: RunOnNode) -> None:
    at_work(run, "train", iteration=2, saying=CHECKPOINT)
    signal_process(at_work(run, "train", iteration=2, index=1), signal.SIGKILL, RANK)


FAULTS = (
    Fault("pod deleted, node cordoned", "sft-0", no_room_for_the_next_pod, 3, 1),
    Fault("Job deleted by hand", "reward-0", job_deleted, 3, 1),
    Fault("sampler killed (SIGKILL)", "sample-1", sampler_killed, 3, 0),
    Fault("pod evicted", "label-1", labeler_evicted, 2, 1),
    Fault("API server stopped for 30 s", "reference-1", api_server_away, 1, 0),
    Fault("one rank told to stop (SIGTERM)", "train-1", rank_told_to_stop, 4, 1),
    Fault("S3 stopped for 30 s", "evaluate-1", store_away, 1, 0),
    Fault("one rank killed (SIGKILL)", "train-2", rank_killed, 4, 1),
)


def ended_well(run: RunOnNode, *, iterations: int) -> None:
    """Whatever happened to it."""
    run.until_finished(PATIENCE_SECONDS)
    assert run.phase is Phase.SUCCEEDED, run.status.message
    put = Counter(run.manifests_put())
    assert [key for key, times in put.items() if times > 1] == [], "sealed twice"
    # What preflight prepared for sft and for reward; sft, reward and the evaluation of pi_0; and five an iteration.
    assert len(put) == 2 + 3 + 5 * iterations, "something was sealed that is no part of it, or not sealed"
    uid = run.run.uid
    told = Counter(
        event["message"]
        for event in run.run.events()
        if event["involvedObject"]["uid"] == uid and re.search(r"started \(attempt \d+\)", event["message"])
    )
    assert [message for message, times in told.items() if times > 1] == [], "started twice"
    assert [pod["metadata"]["name"] for pod in run.run.pods() if is_running(pod)] == [], "still at work"
    assert [where for where, text in run.told().items() if any(form in text for form in SECRET_FORMS)] == [], "a secret was told"


@pytest.fixture(scope="module")
def struck(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> RunOnNode:
    """A run of two iterations; in most of its stages something happens."""
    run = installation.prepare("struck", tmp_path_factory.mktemp("struck"))
    run.apply()
    for fault in FAULTS:
        fault.cause(run)
    run.until_finished(PATIENCE_SECONDS)
    return run


def test_it_ends_as_if_nothing_had_been(struck: RunOnNode) -> None:
    ended_well(struck, iterations=2)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_fault_costs_the_stage_that_it_hit_what_it_must_and_no_other(struck: RunOnNode, fault: Fault, table: Table) -> None:
    stage, pods = struck.stages[fault.where], struck.pods_made()[fault.where]
    table.add(fault.what, fault.where, pods, stage.infrastructure_retries)
    assert (pods, stage.infrastructure_retries, stage.application_retries) == (fault.pods, fault.retries, 0)


def test_what_nothing_was_done_to_was_done_once(struck: RunOnNode) -> None:
    unhurt = struck.pods_made()
    for fault in FAULTS:
        del unhurt[fault.where]
    once = {"preflight-0": 1, "evaluate-0": 1, "sample-2": 2, "label-2": 1, "reference-2": 1, "evaluate-2": 1, "finalize-0": 1}
    assert unhurt == once


@pytest.mark.parametrize(("stage", "kept"), [("train-1", "all of it"), ("train-2", "what the last checkpoint held")])
def test_a_training_that_lost_a_rank_goes_on_from_its_checkpoint(struck: RunOnNode, stage: str, kept: str) -> None:
    logs = struck.logs(stage)
    goes_on = re.search(RESUMED, logs)
    assert goes_on, logs
    done = int(goes_on[1])
    stopped = re.search(r"Stopped by SIGTERM after step (\d+)", logs)
    if stopped:
        assert done == int(stopped[1]), kept
    else:
        assert done > 0
        assert done % struck.manifest["spec"]["train"]["checkpointEverySteps"] == 0, kept
    assert bool(stopped) == (stage == "train-1")
    steps = [line["step"] for line in struck.training_metrics(stage)]
    assert steps == list(range(1, len(steps) + 1)), "a step is missing, or was taken twice"


def test_suspended_and_resumed_then_deleted_and_applied_again(installation: Installation, tmp_path: Path, table: Table) -> None:
    run = installation.prepare("again", tmp_path, iterations=1)
    # Half a minute of training, to be in the midst of it three times.
    run.manifest["spec"]["train"]["optimization"]["epochs"] = 150.0
    run.apply()
    at_work(run, "train", iteration=1, saying=TRAINING)
    run.run.patch(suspend=True)
    wait_until(lambda: run.phase is Phase.SUSPENDED and not any(map(is_running, run.run.pods())), "a pause", seconds=300)
    suspended = run.stages["train-1"]
    run.run.patch(suspend=False)
    at_work(run, "train", iteration=1, saying="going on from there")
    resumed = run.stages["train-1"]
    assert (resumed.infrastructure_retries, resumed.application_retries) == (0, 0), "a pause costs nothing"
    assert resumed.attempt > suspended.attempt
    table.add("suspended while it trained, and resumed", "train-1", run.pods_made()["train-1"], resumed.infrastructure_retries)
    run.delete()
    run.apply()
    ended_well(run, iterations=1)
    stages = run.stages
    assert {name for name, stage in stages.items() if stage.adopted} == {
        *("sft-0", "reward-0", "evaluate-0"),
        *("sample-1", "label-1", "reference-1"),
    }, "what is done is found"
    assert re.search(RESUMED, run.logs("train-1")), "the training goes on where the deleted run's was"
    table.add("deleted while it trained, and applied again", "train-1", run.pods_made()["train-1"], 0)


def test_the_operator_killed_at_twenty_moments(installation: Installation, tmp_path: Path, table: Table) -> None:
    """Its pod, without grace, at moments uniform over whole runs; one after the other until it was killed often enough."""
    random, kills, pods = Random(2024), 0, 0
    while kills < OPERATOR_KILLS:
        run = installation.prepare(f"operated-{kills}", tmp_path / str(kills))
        run.apply()
        while not run.phase.finished:
            moment = time.monotonic() + random.uniform(*BETWEEN_KILLS_SECONDS)
            while time.monotonic() < moment and not run.phase.finished:
                time.sleep(0.2)
            if not run.phase.finished:
                kills += installation.kill_operator()
        ended_well(run, iterations=2)
        again = {name for name, stage in run.stages.items() if stage.attempt > 1 or stage.infrastructure_retries}
        assert again == set(), "it costs no stage anything"
        pods += run.pods_made().total()
    table.add(f"operator's pod killed, {kills} times", "everywhere", pods, 0)


def test_out_of_memory_then_out_of_disk_then_with_enough_of_both(installation: Installation, tmp_path: Path, table: Table) -> None:
    """The run says which, and of what; applied again with more, it goes on behind what it had done."""
    run = installation.prepare("short", tmp_path, iterations=1, retry={"application": 1, "backoffSeconds": 1})
    enough = run.manifest["spec"]["podDefaults"]["resources"]
    spec = run.manifest["spec"]
    spec["label"]["pod"] = {"resources": {"limits": {"memory": "200Mi"}, "requests": {"memory": "200Mi"}}}
    spec["train"]["compute"]["pod"] = {"resources": {"limits": {**enough["limits"], "ephemeral-storage": "1Mi"}}}
    for stage, reason, what in (
        ("label", Reason.OOM_KILLED, "out of memory"),
        ("train", Reason.RETRY_BUDGET_EXHAUSTED, "scratch full"),
    ):
        run.apply()
        run.until_finished(PATIENCE_SECONDS)
        failed = run.stages[f"{stage}-1"]
        assert (run.phase, failed.phase, failed.application_retries) == (Phase.FAILED, Phase.FAILED, 2), run.status.message
        assert failed.infrastructure_retries == 0
        assert reason in json.dumps(run.run.status)
        table.add(f"{what}; applied again with more", f"{stage}-1", run.pods_made()[f"{stage}-1"], 0, failed.application_retries)
        run.delete()
        (spec["label"] if stage == "label" else spec["train"]["compute"]).pop("pod")
    run.apply()
    ended_well(run, iterations=1)
