"""What follows a run in a cluster: across stages and broken connections, until it ends or Ctrl-C detaches."""

from __future__ import annotations

import pytest

from rlhfctl.exits import Exit
from support import example_runs
from support.cluster_runs import STORE, ClusterRuns

pytestmark = pytest.mark.cluster


def _succeeds(runs: ClusterRuns) -> None:
    runs.set_status(example_runs.finished("tiny", STORE).to_wire()["status"])


def test_logs_go_from_stage_to_stage_and_mirror_the_run_s_end(runs: ClusterRuns) -> None:
    runs.create(None, sample={"shards": 2})
    preflight = runs.pod("preflight", log="store is writable\n")
    runs.start(preflight)
    runs.end(preflight)
    with runs.following("logs", "tiny", "-f") as logs:
        logs.says("store is writable")
        shards = [runs.pod("sample", iteration=1, index=index, log="sampling\n") for index in (0, 1)]
        for pod in shards:
            runs.start(pod)
        logs.says("shard 1 | sampling")
        runs.cluster.write_log(runs.namespace, shards[1], "sealed\n")
        logs.says("shard 1 | sealed")
        for pod in shards:
            runs.end(pod)
        train = runs.pod("train", iteration=1, log="loss 0.7\n")
        runs.start(train)
        logs.says("loss 0.7")
        runs.cluster.write_log(runs.namespace, train, "loss 0.6\n")
        runs.end(train)
        _succeeds(runs)
        done = logs.ended()
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "store is writable"
    assert sorted(lines[1:4]) == ["shard 0 | sampling", "shard 1 | sampling", "shard 1 | sealed"]
    assert lines[4:] == ["loss 0.7", "loss 0.6"]
    assert "==> sample, iteration 1, attempt 1 <==" in done.err


def test_logs_and_wait_go_on_after_the_api_server_was_restarted(runs: ClusterRuns) -> None:
    """No line is lost and none comes twice, though each stream was cut in the middle of a log."""
    runs.create(None)
    # Two and two have one time.
    train = runs.pod("train", iteration=1, log="step 1\nstep 2\nstep 3\n")
    runs.start(train)
    with runs.following("submit", str(runs.manifest()), "--follow") as logs:
        logs.says("step 3")
        runs.cluster.restart("kube-apiserver")
        runs.cluster.write_log(runs.namespace, train, "step 4\nstep 5\n")
        logs.says("step 5")
        runs.end(train)
        _succeeds(runs)
        done = logs.ended()
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["rlhfrun.rlhf.dev/tiny unchanged", *(f"step {n}" for n in range(1, 6))]


def test_logs_of_a_run_that_fails_end_as_it_does(runs: ClusterRuns) -> None:
    runs.create(None)
    pod = runs.pod("sft", log="no space left\n")
    runs.start(pod)
    with runs.following("logs", "tiny", "-f") as logs:
        logs.says("no space left")
        runs.end(pod)
        runs.set_status(example_runs.failed("tiny", STORE).to_wire()["status"])
        done = logs.ended()
    assert done.code == Exit.RUN_FAILED
    assert "run 'tiny' has failed" in done.err


def test_ctrl_c_detaches_and_says_how_to_come_back(runs: ClusterRuns) -> None:
    runs.create(example_runs.at_work)
    pod = runs.pod("train", iteration=2, attempt=2, log="loss 0.7\n")
    runs.start(pod)
    with runs.following("logs", "tiny", "-f", "-n", runs.namespace) as logs:
        logs.says("loss 0.7")
        logs.interrupt()
        done = logs.ended()
    assert done.code == Exit.DETACHED
    assert f"rlhfctl logs tiny -n {runs.namespace} --follow" in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_status_watch_prints_each_change_until_the_run_has_ended(runs: ClusterRuns) -> None:
    runs.create(example_runs.at_work)
    with runs.following("status", "tiny", "--watch") as status:
        status.says("tiny ● Running")
        runs.set_status(example_runs.paused("tiny", STORE).to_wire()["status"])
        status.says("tiny ‖ Paused")
        status.says("is paused until somebody lets it go on: rlhfctl approve tiny")
        _succeeds(runs)
        done = status.ended()
    assert done.code == 0
    assert "tiny  ✓ Succeeded" in done.out


def test_wait_says_that_a_run_was_deleted(runs: ClusterRuns) -> None:
    runs.create(example_runs.paused)
    with runs.following("wait", "tiny") as wait:
        wait.says("is paused until somebody")
        runs.cluster.kubectl("delete", "rlhf", "tiny", "-n", runs.namespace)
        done = wait.ended()
    assert done.code == Exit.NOT_FOUND
    assert "was deleted while it was watched" in done.err


def test_events_are_followed_until_the_run_has_ended(runs: ClusterRuns) -> None:
    uid = runs.create(example_runs.at_work)["metadata"]["uid"]
    runs.event("RLHFRun", "tiny", "StageStarted", "Stage sample of iteration 1 started.", second=1, uid=uid)
    with runs.following("events", "tiny", "-w") as events:
        events.says("Stage sample of iteration 1 started.")
        runs.event("Job", "tiny-i1-train-1", "SuccessfulCreate", "Created pod", second=2)
        events.says("SuccessfulCreate job/tiny-i1-train-1")
        _succeeds(runs)
        done = events.ended()
    assert done.code == 0
    assert done.out.count("Stage sample of iteration 1 started.") == 1
