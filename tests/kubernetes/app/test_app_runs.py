"""Runs on a real API server, driven by the running operator: one process for all tests here, pods played by kwok.

Each test's run has a name of its own; what a test changes is its own run.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from cluster.api import ApiError
from cluster.handle import Cluster
from support.operated_runs import ClusterRun, planned
from support.operator_process import OperatorProcess, errors
from support.operator_role import permissions
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

ONE = {"iterations": 1}


@pytest.fixture(scope="module")
def operator(cluster: Cluster, crd: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    # A long Lease: a third of it is what a write may take, also on a machine that is busy with other tests.
    settings = {"LEASE_SECONDS": "60"}
    with cluster.namespace() as namespace, OperatorProcess(folder, cluster.kubeconfig, [namespace], **settings) as operator:
        operator.wait_leading()
        yield operator


@pytest.fixture
def run(cluster: Cluster, operator: OperatorProcess) -> Iterator[ClusterRun]:
    """Not created yet. Whatever the test was about, no round failed and every watch and worker lives."""
    before = len(operator.lines())
    run = ClusterRun(cluster, operator.namespaces[0], f"r{secrets.token_hex(4)}")
    yield run
    with suppress(OSError, ApiError):
        run.delete()
    assert errors(operator.lines()[before:]) == []
    assert operator.get("/livez") == (200, "ok")


def stages(*iterations: int) -> list[tuple[int, str]]:
    """(iteration, stage) of a whole run; 0 is the run itself."""
    each = ("sample", "label", "reference", "train", "evaluate")
    return [(0, "preflight"), (0, "evaluate"), *((t, stage) for t in iterations for stage in each), (0, "finalize")]


def test_a_whole_run_succeeds_with_one_job_for_each_stage(run: ClusterRun, operator: OperatorProcess) -> None:
    gaps = operator.metric("rlhf_stage_gap_seconds_count")
    run.create(sample={"shards": 2, "parallelism": 2}, train={"compute": {"nodes": 2, "processesPerNode": 1}})
    status = run.until_phase("Succeeded")
    assert sorted(run.attempts()) == sorted((*stage, 1) for stage in stages(1, 2))
    assert status["bestIteration"] == 2
    assert (run.condition("Complete")["status"], run.condition("Progressing")["status"]) == ("True", "False")
    assert all(stage["phase"] == "Succeeded" for entry in status["iterations"] for stage in entry["stages"])
    words = [event["message"] for event in run.events()]
    assert "Stage train of iteration 2 is done." in words
    assert words[-1].startswith("Succeeded: ")
    assert operator.metric("rlhf_runs", phase="Succeeded") >= 1
    assert operator.metric("rlhf_stage_duration_seconds_count", stage="train") >= 2
    assert operator.metric("rlhf_stage_gap_seconds_count") - gaps >= len(stages(1, 2)) // 2


def test_a_suspended_run_stops_its_stage_and_goes_on_when_it_is_resumed(run: ClusterRun) -> None:
    run.create(**ONE, sample={"pod": planned("hang", attempts=1)})
    run.until("sample running", lambda status: any(pod["status"].get("phase") == "Running" for pod in sample_pods(run)))
    run.patch(suspend=True)
    run.until_phase("Suspended")
    wait_until(lambda: not [job for job in run.jobs() if is_stage(job, "sample")], "the stage's Job to be gone")
    run.patch(suspend=False)
    status = run.until_phase("Succeeded")
    [sample] = [stage for stage in status["iterations"][0]["stages"] if stage["name"] == "sample"]
    assert sample["attempt"] >= 2
    assert (sample.get("applicationRetries", 0), sample.get("infrastructureRetries", 0)) == (0, 0)


def test_a_cancelled_run_ends_at_once_and_leaves_nothing_at_work(run: ClusterRun) -> None:
    run.create(**ONE, sample={"pod": planned("hang")})
    run.until("sample running", lambda status: sample_pods(run))
    run.patch(cancel=True)
    run.until_phase("Cancelled")
    wait_until(lambda: not sample_pods(run), "the stage's pods to be gone")


def test_a_gate_pauses_the_run_until_it_is_approved(run: ClusterRun) -> None:
    run.create(**ONE, gates=[{"name": "high", "metric": "winRateVsInitial", "min": 0.99, "action": "Pause"}])
    status = run.until_phase("Paused")
    assert "high" in status["message"]
    run.patch(approvals=[{"gate": "high", "iteration": 1}])
    run.until_phase("Succeeded")


def test_iterations_raised_while_it_runs_are_run_too(run: ClusterRun) -> None:
    run.create(**ONE, train={"compute": {"pod": planned("", takes="1s")}})
    run.until("iteration 1", lambda status: status.get("iteration") == 1)
    run.patch(iterations=2)
    status = run.until_phase("Succeeded")
    assert [entry["number"] for entry in status["iterations"]] == [1, 2]


def test_a_failed_stage_is_tried_again_and_then_the_run_fails_with_its_words(run: ClusterRun) -> None:
    run.create(**ONE, retry={"application": 1, "backoffSeconds": 0}, train={"compute": {"pod": planned("exit-1")}})
    status = run.until_phase("Failed")
    assert run.condition("Failed")["reason"] == "RetryBudgetExhausted"
    assert "It was planned to fail." in status["message"]
    assert [attempt for attempt in run.attempts() if attempt[1] == "train"] == [(1, "train", 1), (1, "train", 2)]


def test_what_only_preflight_can_see_ends_as_a_configuration_error(run: ClusterRun) -> None:
    run.create(**ONE, podDefaults=planned("exit-64"))
    status = run.until_phase("Failed")
    assert run.condition("Failed")["reason"] == "ConfigurationError"
    assert "It was planned to fail." in status["message"]
    assert run.attempts() == [(0, "preflight", 1)]


def test_what_the_api_server_lets_through_and_this_operator_refuses_ends_as_a_configuration_error(run: ClusterRun) -> None:
    run.create(**ONE, storage={"url": "s3://bucket/x", "credentials": {"serviceAccountName": "administrator"}})
    status = run.until_phase("Failed")
    assert run.condition("Failed")["reason"] == "ConfigurationError"
    assert "administrator is not on this operator's list" in status["message"]
    assert run.jobs() == []


def test_a_quota_is_told_and_waited_for(run: ClusterRun, cluster: Cluster) -> None:
    quotas = f"/api/v1/namespaces/{run.namespace}/resourcequotas"
    name = f"quota-{run.name}"
    cluster.api.post(quotas, {"metadata": {"name": name}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    try:
        wait_until(lambda: "hard" in cluster.api.get(f"{quotas}/{name}").get("status", {}), "the quota to be in force")
        run.create(**ONE)
        status = run.until("the quota to be told", lambda status: "exceeded quota" in status.get("message", ""))
        assert status["phase"] == "Pending"
        assert run.condition("Progressing")["reason"] == "QuotaExceeded"
    finally:
        cluster.api.delete(f"{quotas}/{name}")
    run.until_phase("Succeeded")


def test_a_deleted_run_takes_its_children_with_it_and_applied_again_it_runs_again(run: ClusterRun) -> None:
    run.create(**ONE, sample={"pod": planned("hang")})
    run.until("sample running", lambda status: sample_pods(run))
    first = run.uid
    run.delete()
    wait_until(lambda: run.find() is None, "the run to be gone", seconds=60)
    run.create(**ONE)
    run.until_phase("Succeeded")
    assert run.uid != first
    wait_until(lambda: owners(run.children()) <= {run.uid}, "the first run's children to be gone", seconds=60)


def test_after_its_ttl_a_finished_run_has_no_children_and_does_not_start_again(run: ClusterRun) -> None:
    run.create(**ONE, ttlSecondsAfterFinished=1)
    status = run.until_phase("Succeeded")
    wait_until(lambda: run.children() == [], "its children to be removed", seconds=60)
    run.patch(suspend=True)
    run.patch(suspend=False)
    assert run.status == status
    assert run.jobs() == []


def test_a_run_that_works_for_too_long_fails_by_its_deadline(run: ClusterRun) -> None:
    run.create(**ONE, activeDeadlineSeconds=2, podDefaults=planned("hang"))
    run.until_phase("Failed")
    assert run.condition("Failed")["reason"] == "DeadlineExceeded"
    wait_until(lambda: run.pods() == [], "its pods to be gone")


def test_a_pod_that_cannot_start_is_told_and_fails_by_its_deadline(run: ClusterRun) -> None:
    run.create(**ONE, pendingDeadlineSeconds=3, podDefaults=planned("image"))
    run.until("the reason", lambda status: "Back-off pulling image" in status.get("message", ""))
    run.until_phase("Failed")
    assert run.condition("Failed")["reason"] == "PendingDeadlineExceeded"


def test_a_job_deleted_by_hand_is_looked_up_and_never_run_again_blindly(run: ClusterRun, cluster: Cluster) -> None:
    run.create(**ONE, sample={"pod": planned("hang", attempts=1)})
    run.until("sample running", lambda status: sample_pods(run))
    [job] = [job for job in run.jobs() if is_stage(job, "sample")]
    path = f"/apis/batch/v1/namespaces/{run.namespace}/jobs/{job['metadata']['name']}"
    cluster.api.delete(path, propagationPolicy="Foreground")
    run.until_phase("Succeeded")
    resolve = [job for job in run.jobs() if job["metadata"]["labels"]["app.kubernetes.io/component"] == "resolve"]
    assert [job["metadata"]["labels"]["rlhf.dev/attempt"] for job in resolve] == ["2"]


def test_it_asks_for_nothing_but_what_its_table_of_permissions_says(operator: OperatorProcess) -> None:
    """After all that the tests above did. The chart's Role has the same table."""
    allowed = {(verb, entry.resource) for entry in permissions() for verb in entry.verbs}
    assert operator.requests() <= allowed | {("get", "other")}


def is_stage(obj: dict[str, Any], stage: str) -> bool:
    return bool(obj["metadata"]["labels"]["rlhf.dev/stage"] == stage)


def sample_pods(run: ClusterRun) -> list[dict[str, Any]]:
    return [pod for pod in run.pods() if is_stage(pod, "sample")]


def owners(objs: list[dict[str, Any]]) -> set[str]:
    """UIDs of the runs that objects belong to; pods belong to a Job and are left out."""
    return {owner["uid"] for obj in objs for owner in obj["metadata"].get("ownerReferences", ()) if owner["kind"] == "RLHFRun"}
