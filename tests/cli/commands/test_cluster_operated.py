"""rlhfctl beside the running operator: a run is submitted, followed, paused by a gate, approved, and ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.cluster_runs import ClusterRuns
from support.operator_process import OperatorProcess
from support.waiting import wait_until

pytestmark = pytest.mark.cluster


@pytest.fixture
def operator(runs: ClusterRuns) -> Iterator[OperatorProcess]:
    with OperatorProcess(runs.folder, runs.cluster.kubeconfig, [runs.namespace]) as operator:
        operator.wait_leading()
        yield operator


def test_a_run_is_submitted_followed_approved_and_its_success_mirrored(runs: ClusterRuns, operator: OperatorProcess) -> None:
    """Simulated pods end well, and each iterate wins more: the gate lets the first by and stops the run at 0.55 and more."""
    gate = {"name": "enough", "metric": "winRateVsInitial", "max": 0.55, "action": "Pause"}
    file = runs.manifest(iterations=1, gates=[gate], sample={"shards": 2, "parallelism": 2})
    with runs.following("submit", "-f", str(file), "--follow") as follow:
        follow.says("run 'tiny' is paused until somebody lets it go on: rlhfctl approve tiny")
        assert runs.rlhfctl("approve", "tiny").code == 0
        done = follow.ended()
    assert done.code == 0, done.err
    headings = [line for line in done.err.splitlines() if line.startswith("==>")]
    assert headings[0] == "==> preflight, attempt 1 <=="
    assert headings[-1] == "==> finalize, attempt 1 <=="
    assert "==> train, iteration 1, attempt 1 <==" in headings
    assert "shard 1 | " in done.out
    assert "tiny  ✓ Succeeded  1 of 1 iteration" in runs.rlhfctl("status", "tiny").out
    assert "Stage train of iteration 1 started" in " ".join(runs.rlhfctl("events", "tiny").out.split())


def test_suspend_and_resume_reach_the_stage_at_work(runs: ClusterRuns, operator: OperatorProcess) -> None:
    hangs = {"annotations": {"test.rlhf.dev/plan": "hang", "test.rlhf.dev/attempts": "1"}}
    assert runs.rlhfctl("submit", str(runs.manifest(iterations=1, podDefaults=hangs))).code == 0

    def phase() -> str:
        return str(runs.get().get("status", {}).get("phase"))

    wait_until(lambda: phase() == "Running", "the run at work", seconds=60)
    runs.rlhfctl("suspend", "tiny")
    wait_until(lambda: phase() == "Suspended", "the run suspended", seconds=60)
    wait_until(lambda: "gone with their pods: preflight-0-1" in runs.rlhfctl("logs", "tiny").err, "the pod gone", seconds=60)
    runs.rlhfctl("resume", "tiny")
    wait_until(lambda: phase() == "Running", "the run at work again", seconds=60)
    runs.rlhfctl("cancel", "tiny")
    assert runs.rlhfctl("wait", "tiny", "--timeout", "60").code == 1
    assert phase() == "Cancelled"
