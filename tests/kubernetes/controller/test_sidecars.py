"""Sidecars that a mesh injects as plain containers, on a real API server with its Job controller: they hold nothing for long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from cluster.handle import Cluster
from rlhf_api.resource.status import RLHFRunStatus, StageStatus
from rlhf_api.words import ConditionType, Phase, Reason, StageName
from rlhf_operator.clock import SystemClock
from rlhf_operator.core.cursor import stages_of
from rlhf_operator.kubernetes.api.resources import EVENTS, JOBS, PODS, Json
from rlhf_operator.reconcile import reconcile
from support.kubernetes_world import KubernetesWorld, played
from support.mesh import SIDECAR, injected
from support.player import Player

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
ONE: dict[str, Any] = {"iterations": 1, "retry": {"application": 1, "backoffSeconds": 0}}
_ROUNDS = 2000


class Ahead(SystemClock):
    """The operator's clock: it can be put forward, so that no grace is waited for."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


class Mesh:
    """A run in a namespace with a mesh, driven round by round."""

    def __init__(self, cluster: Cluster, namespace: str, player: Player) -> None:
        self._cluster, self.namespace, self.player = cluster, namespace, player
        self.clock = Ahead()

    def start(self, **changes: Any) -> None:
        self.world = KubernetesWorld(self._cluster, self.namespace, played(**ONE | changes))

    def until(self, condition: Callable[[RLHFRunStatus], object]) -> RLHFRunStatus:
        """Every round a minute later than the one before."""
        status = RLHFRunStatus()
        for _ in range(_ROUNDS):
            self.world.tell_index()
            reconciled = reconcile(self.world.backend, self.clock)
            assert reconciled is not None
            status = reconciled.decision.status
            if reconciled.carried_out and condition(status):
                return status
            self.player.wait()
            self.clock.ahead += timedelta(seconds=60)
        raise AssertionError(f"it never came to this: {status.phase}: {status.message}; {self.pods()}")

    def until_phase(self, phase: Phase) -> RLHFRunStatus:
        status = self.until(lambda status: status.phase.finished)
        assert status.phase is phase, status.message
        # Nothing holds a GPU any more, and all that was held is booked.
        self.until(lambda status: not self.pods() and not any(stage.held for _, stage in stages_of(status)))
        return status

    def pods(self) -> list[Json]:
        pods = self.world.cluster.list(PODS, self.namespace)
        return [pod for pod in pods if pod.get("status", {}).get("phase") in ("Pending", "Running")]

    def jobs(self) -> list[Json]:
        return self.world.cluster.list(JOBS, self.namespace)

    def told(self) -> list[str]:
        return [event["message"] for event in self.world.cluster.list(EVENTS, self.namespace)]

    def attempts(self, label: str) -> list[tuple[int, int, str]]:
        return [(start.attempt, start.index, start.plan) for start in self.player.starts if start.label == label]


@pytest.fixture
def mesh(cluster: Cluster, namespace: str) -> Iterator[Mesh]:
    with injected(cluster.api, namespace), Player(cluster.api, namespace) as player:
        yield Mesh(cluster, namespace, player)


def stage(status: RLHFRunStatus, name: StageName, iteration: int | None = 1) -> StageStatus:
    return next(entry for number, entry in stages_of(status) if (number, entry.name) == (iteration, name))


def test_a_whole_run_succeeds_and_every_stage_waits_for_the_former_s_pods(mesh: Mesh) -> None:
    gang = {"compute": {"nodes": 2, "processesPerNode": 1}}
    mesh.start(sample={"shards": 2, "parallelism": 2}, train=gang)
    status = mesh.until_phase(Phase.SUCCEEDED)
    assert status.best_iteration == 1
    assert {entry.attempt for _, entry in stages_of(status)} == {1}
    assert set(mesh.player.store.sealed.values()) == {1}
    of_train = [message for message in mesh.told() if message.startswith("The stage's container in pod tiny-i1-train-1-")]
    assert len(of_train) == 1
    assert f"has ended, and {SIDECAR} goes on in it. The pod is stopped" in of_train[0]


def test_a_configuration_error_fails_the_run_with_its_words_and_its_pods_are_let_go(mesh: Mesh) -> None:
    mesh.player.plan("train-1", "exit 64")
    mesh.start()
    status = mesh.until_phase(Phase.FAILED)
    assert "It was planned to fail with 64." in status.message
    assert [found.reason for found in status.conditions if found.type is ConditionType.FAILED] == [Reason.CONFIGURATION_ERROR]


@pytest.mark.parametrize(("plan", "application", "infrastructure"), [("exit 1", 1, 0), ("exit 143", 0, 1), ("oom", 1, 0)])
def test_a_failure_is_counted_and_tried_again_when_the_former_s_pods_are_gone(
    mesh: Mesh, plan: str, application: int, infrastructure: int
) -> None:
    mesh.player.plan("train-1", plan)
    mesh.start()
    train = stage(mesh.until_phase(Phase.SUCCEEDED), StageName.TRAIN)
    assert (train.application_retries, train.infrastructure_retries) == (application, infrastructure)
    assert mesh.attempts("train-1")[0] == (1, 0, plan)


@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_shard_that_ended_is_done_and_let_go_while_another_works(mesh: Mesh, parallelism: int) -> None:
    """Its place is another's, and its Job knows that it is done."""
    mesh.player.plan("sample-1-1", "hang")
    mesh.start(sample={"shards": 2, "parallelism": parallelism})
    mesh.until(lambda status: any(job.get("status", {}).get("completedIndexes") == "0" for job in mesh.jobs()))
    mesh.until(lambda status: [index for _, index, _ in mesh.attempts("sample-1")] == [0, 1])
    mesh.until(lambda status: len(mesh.pods()) == 1)
    [at_work] = mesh.pods()
    assert at_work["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "1"
    mesh.player.finish("tiny-i1-sample-1")
    sample = stage(mesh.until_phase(Phase.SUCCEEDED), StageName.SAMPLE)
    assert (sample.attempt, sample.application_retries, sample.infrastructure_retries) == (1, 0, 0)


def test_a_shard_that_failed_is_tried_again_by_its_job_and_counted(mesh: Mesh) -> None:
    mesh.player.plan("sample-1-0", "hang")
    mesh.player.plan("sample-1-1", "exit 75", "exit 1", "exit 143")
    mesh.start(sample={"shards": 2, "parallelism": 2})
    mesh.until(lambda status: len(mesh.attempts("sample-1")) == 5)
    mesh.player.finish("tiny-i1-sample-1")
    sample = stage(mesh.until_phase(Phase.SUCCEEDED), StageName.SAMPLE)
    assert (sample.attempt, sample.application_retries, sample.infrastructure_retries) == (1, 1, 2)
    assert [plan for _, index, plan in mesh.attempts("sample-1") if index == 1] == ["exit 75", "exit 1", "exit 143", ""]


def test_a_shard_beyond_its_budget_fails_the_run_though_its_pods_are_gone(mesh: Mesh) -> None:
    mesh.player.plan("sample-1-0", "hang")
    mesh.player.plan("sample-1-1", "exit 1", "exit 1")
    mesh.start(sample={"shards": 2, "parallelism": 2})
    status = mesh.until_phase(Phase.FAILED)
    assert "failed 2 times and retry.application is 1" in status.message


def test_a_sidecar_that_does_not_end_well_costs_a_shard_no_application_retry(mesh: Mesh) -> None:
    mesh.player.sidecars_end_with = 143
    mesh.player.plan("sample-1-0", "hang")
    mesh.start(sample={"shards": 2, "parallelism": 2})
    mesh.until(lambda status: [index for _, index, _ in mesh.attempts("sample-1")].count(1) == 2)
    mesh.player.finish("tiny-i1-sample-1")
    status = mesh.until_phase(Phase.SUCCEEDED)
    sample = stage(status, StageName.SAMPLE)
    assert (sample.attempt, sample.application_retries) == (1, 0)
    assert set(mesh.player.store.sealed.values()) == {1}
