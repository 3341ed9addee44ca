"""The operator killed, stopped, frozen, doubled and cut off, in the middle of runs on a real API server.

Each test has operators of its own, in a namespace of its own. Whatever is done to them, a run ends as it would have, with one Job
for each stage: nothing is done twice, nothing is left out.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Json
from cluster.handle import Cluster
from support.api_proxy import ApiProxy, Asked, Fault
from support.operated_runs import ClusterRun, planned
from support.operator_process import OperatorProcess, errors
from support.operator_role import grant
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

STAGES = ["preflight", "evaluate", "sample", "label", "reference", "train", "evaluate", "finalize"]
#: Short, so that nobody waits long for another's to run out; long enough for a machine that is busy.
LEASE_SECONDS = 6


def a_run(cluster: Cluster, namespace: str, **changes: Any) -> ClusterRun:
    return ClusterRun(cluster, namespace, "tiny").create(iterations=1, **changes)


def ended_as_it_should(run: ClusterRun, seconds: float = 120.0) -> None:
    run.until_phase("Succeeded", seconds)
    assert sorted(stage for _, stage, _ in run.attempts()) == sorted(STAGES)
    assert {attempt for _, _, attempt in run.attempts()} == {1}


def lease(cluster: Cluster, namespace: str) -> Json:
    return dict(cluster.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/rlhf-operator"))


def test_killed_at_every_stage_it_goes_on_where_it_was(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace]) as operator:
        operator.wait_leading()
        run = a_run(cluster, namespace, podDefaults=planned("", takes="1s"))
        for stage in ("preflight", "sample", "train"):
            run.until_stage(stage)
            operator.kill()
            operator.start()
        ended_as_it_should(run)


def test_a_stage_that_ends_while_no_operator_is_there_is_found_ended(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace]) as operator:
        operator.wait_leading()
        run = a_run(cluster, namespace)
        run.until("preflight", lambda status: run.jobs())
        operator.kill()
        wait_until(lambda: all(job["status"].get("succeeded") for job in run.jobs()), "the Job to end")
        operator.start()
        ended_as_it_should(run)


def test_told_to_stop_it_lets_go_of_the_lease_and_the_next_leads_at_once(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with (
        OperatorProcess(tmp_path, cluster.kubeconfig, [namespace], IDENTITY="first", LEASE_SECONDS="60") as first,
        OperatorProcess(tmp_path, cluster.kubeconfig, [namespace], IDENTITY="second", LEASE_SECONDS="60") as second,
    ):
        first.wait_leading()
        assert second.get("/readyz") == (200, "ok, standby")
        assert first.stop() == 0
        assert errors(first.lines()) == []
        # Not after 60 seconds: it asks for the Lease every 12.
        second.wait_leading(30)
        assert lease(cluster, namespace)["spec"]["holderIdentity"] == "second"


def test_of_two_at_once_one_writes_and_the_other_takes_over(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """Each as a ServiceAccount of its own, with just the Role: the API server's audit log says who wrote."""
    first, second = (contender(cluster, namespace, tmp_path, name) for name in ("first", "second"))
    with first, second:
        leader, standby = wait_for_leader(first, second)
        run = a_run(cluster, namespace, podDefaults=planned("", takes="1s"))
        run.until("stage sample", lambda status: status.get("stage") == "sample")
        assert writers(cluster, namespace) == {user_of(leader, namespace)}
        leader.kill()
        standby.wait_leading()
        ended_as_it_should(run)
        assert standby.metric("rlhf_leader") == 1


def test_one_that_was_frozen_past_its_lease_writes_nothing_when_it_wakes(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    first, second = (contender(cluster, namespace, tmp_path, name) for name in ("first", "second"))
    with first, second:
        leader, standby = wait_for_leader(first, second)
        run = a_run(cluster, namespace, podDefaults=planned("", takes="1s"))
        run.until("stage sample", lambda status: status.get("stage") == "sample")
        leader.freeze()
        standby.wait_leading()
        before = writes_of(cluster, namespace, user_of(leader, namespace))
        leader.thaw()
        ended_as_it_should(run)
        assert leader.get("/readyz") == (200, "ok, standby")
        # A request may have been frozen between the question whether it may be sent and the wire. All that the operator sends is
        # refused where somebody else has written since, by name, uid or resourceVersion; only an Event is not.
        assert writes_of(cluster, namespace, user_of(leader, namespace))[len(before) :] in ([], ["create events"])


def test_the_api_server_may_be_restarted_in_the_middle(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace]) as operator:
        operator.wait_leading()
        run = a_run(cluster, namespace, podDefaults=planned("", takes="1s"))
        run.until("stage sample", lambda status: status.get("stage") == "sample")
        cluster.restart("kube-apiserver")
        ended_as_it_should(run)
        assert operator.get("/livez") == (200, "ok")


def test_watches_that_fall_silent_are_opened_again(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    settings = {"WATCH_SILENCE_SECONDS": "2"}
    with ApiProxy(cluster.api, tmp_path) as proxy, OperatorProcess(tmp_path, proxy.kubeconfig, [namespace], **settings) as operator:
        operator.wait_leading()
        run = a_run(cluster, namespace, podDefaults=planned("", takes="500ms"))
        for stage in ("preflight", "sample", "train"):
            run.until_stage(stage)
            proxy.silence()
        ended_as_it_should(run)


def test_what_no_watch_tells_the_full_list_finds(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    settings = {"WATCH_SILENCE_SECONDS": "3600", "RESYNC_SECONDS": "2"}
    with ApiProxy(cluster.api, tmp_path) as proxy, OperatorProcess(tmp_path, proxy.kubeconfig, [namespace], **settings) as operator:
        operator.wait_leading()
        wait_until(lambda: proxy.watches >= 3, "the watches to be open")
        proxy.silence()
        run = a_run(cluster, namespace)
        ended_as_it_should(run)
        run.delete()
        wait_until(lambda: operator.metric("rlhf_runs") == 0, "the run to be forgotten", seconds=30)


@pytest.mark.parametrize(
    "fault",
    [Fault(409, "Conflict"), Fault(429, "TooManyRequests"), Fault(500, "InternalError", after=True)],
    ids=lambda fault: str(fault.status),
)
def test_answers_that_are_no_answers_change_nothing_in_the_end(
    cluster: Cluster, namespace: str, tmp_path: Path, fault: Fault
) -> None:
    """One write of the operator in five is answered so; `after`: it was done all the same."""
    chance = random.Random(fault.status)

    def one_in_five(asked: Asked) -> Fault | None:
        return fault if asked.write and "/leases" not in asked.path and chance.random() < 0.2 else None

    with ApiProxy(cluster.api, tmp_path) as proxy, OperatorProcess(tmp_path, proxy.kubeconfig, [namespace]) as operator:
        operator.wait_leading()
        proxy.fault = one_in_five
        ended_as_it_should(a_run(cluster, namespace), seconds=180)
        assert operator.get("/livez") == (200, "ok")


def test_without_a_namespace_of_its_own_it_works_on_all(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with (
        cluster.namespace() as other,
        OperatorProcess(tmp_path, cluster.kubeconfig, [], LEASE_NAMESPACE=namespace) as operator,
    ):
        operator.wait_leading()
        for run in [a_run(cluster, where) for where in (namespace, other)]:
            ended_as_it_should(run)
        assert operator.metric("rlhf_runs", phase="Succeeded") >= 2


def contender(cluster: Cluster, namespace: str, folder: Path, name: str) -> OperatorProcess:
    kubeconfig = grant(cluster, namespace, name, folder)
    return OperatorProcess(folder, kubeconfig, [namespace], IDENTITY=name, LEASE_SECONDS=str(LEASE_SECONDS))


def wait_for_leader(first: OperatorProcess, second: OperatorProcess) -> tuple[OperatorProcess, OperatorProcess]:
    wait_until(lambda: first.leading or second.leading, "one of them to lead", seconds=60)
    return (first, second) if first.leading else (second, first)


def user_of(operator: OperatorProcess, namespace: str) -> str:
    return f"system:serviceaccount:{namespace}:{operator.settings['IDENTITY']}"


def writes_of(cluster: Cluster, namespace: str, user: str) -> list[str]:
    """What this user has had written in the namespace, but for the Lease: "create jobs"."""
    return [
        f"{request.verb} {request.resource}"
        for request in cluster.requests()
        if (request.namespace, request.user) == (namespace, user)
        and request.verb in ("create", "update", "patch", "delete")
        and request.resource != "leases"
        and request.status < 400
    ]


def writers(cluster: Cluster, namespace: str) -> set[str]:
    """The ServiceAccounts of the namespace that have had something written."""
    users = {request.user for request in cluster.requests() if request.namespace == namespace}
    ours = {user for user in users if user.startswith(f"system:serviceaccount:{namespace}:")}
    return {user for user in ours if writes_of(cluster, namespace, user)}
