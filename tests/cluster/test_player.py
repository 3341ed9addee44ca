"""The player plays real Jobs: what it writes, the Job controller takes for what containers did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from cluster.handle import Cluster
from rlhf_api.resource.run import RLHFRun
from rlhf_api.stage import StageConfig, StageResult
from rlhf_api.words import StageName
from rlhf_operator.core.actions import CreateConfigMap, CreateJob
from support.backend_contract import launched
from support.player import ANNOTATIONS, Player, Start
from support.runs import run_of, spec_of
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
SHARDED = {"sample": {"shards": 2, "parallelism": 2}}
IGNORED = {"action": "Ignore", "onExitCodes": {"containerName": "stage", "operator": "In", "values": [75, 143]}}


@pytest.fixture
def player(cluster: Cluster, namespace: str) -> Iterator[Player]:
    with Player(cluster.api, namespace) as player:
        yield player


class Jobs:
    """Makes Jobs as bare as they can be, with the configuration that the core gives to a stage."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.run: RLHFRun = run_of(spec_of(**SHARDED))
        self._api = cluster.api
        self._jobs, self._pods = f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/api/v1/namespaces/{namespace}/pods"
        self._config_maps = f"/api/v1/namespaces/{namespace}/configmaps"

    def start(self, stage: StageName, attempt: int = 1, *, resolving: bool = False, configured: bool = True, **spec: Any) -> str:
        actions = launched(self.run, stage, attempt, resolving=resolving)
        name = next(action for action in actions if isinstance(action, CreateJob)).name
        if configured:
            self.configure(next(action for action in actions if isinstance(action, CreateConfigMap)).config, name)
        container = {
            "name": "stage",
            "image": "example/rlhf-operator:0.1.0",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        template = {"metadata": {"annotations": ANNOTATIONS}, "spec": pod}
        job = {"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": template, **spec}
        self._api.post(
            self._jobs, {"metadata": {"name": name}, "spec": {key: value for key, value in job.items() if value is not None}}
        )
        return name

    def configure(self, config: StageConfig, name: str) -> None:
        self._api.post(self._config_maps, {"metadata": {"name": name}, "data": {"stage.yaml": yaml.safe_dump(config.to_wire())}})

    def delete(self, name: str) -> None:
        self._api.delete(f"{self._jobs}/{name}", propagationPolicy="Foreground")

    def gone(self, name: str) -> bool:
        return self._api.find(f"{self._jobs}/{name}") is None

    def ended(self, name: str) -> str:
        """Complete or Failed."""

        def condition() -> str | None:
            conditions = self._api.get(f"{self._jobs}/{name}").get("status", {}).get("conditions", [])
            met = {condition["type"] for condition in conditions if condition["status"] == "True"}
            return next((word for word in ("Complete", "Failed") if word in met), None)

        return wait_until(condition, f"the end of Job {name}", seconds=60) or ""

    def pods(self, name: str) -> list[Json]:
        found: list[Json] = self._api.get(self._pods, labelSelector=f"batch.kubernetes.io/job-name={name}")["items"]
        return found

    def codes(self, name: str) -> list[int]:
        return sorted(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in self.pods(name))

    def results(self, name: str) -> list[StageResult]:
        texts = [pod["status"]["containerStatuses"][0]["state"]["terminated"].get("message", "") for pod in self.pods(name)]
        return [StageResult.model_validate_json(text) for text in texts if text]


@pytest.fixture
def jobs(cluster: Cluster, namespace: str) -> Jobs:
    return Jobs(cluster, namespace)


def running(jobs: Jobs, name: str) -> Callable[[], bool]:
    return lambda: [pod["status"]["phase"] for pod in jobs.pods(name)] == ["Running"]


def test_a_stage_seals_its_artifact_once_and_later_ones_find_it(jobs: Jobs, player: Player) -> None:
    missing = jobs.start(StageName.EVALUATE, 1, resolving=True)
    assert jobs.ended(missing) == "Complete"
    [nothing] = jobs.results(missing)
    assert (nothing.artifact, nothing.found) == (None, False)
    first, second = (jobs.start(StageName.EVALUATE, attempt) for attempt in (2, 3))
    assert [jobs.ended(first), jobs.ended(second)] == ["Complete", "Complete"]
    found = jobs.start(StageName.EVALUATE, 4, resolving=True)
    assert jobs.ended(found) == "Complete"
    artifacts = [jobs.results(name)[0].artifact for name in (first, second, found)]
    assert artifacts[0] is not None
    assert artifacts == [artifacts[0]] * 3
    assert set(player.store.sealed.values()) == {1}


def test_it_ends_as_planned_and_a_stage_without_a_plan_ends_well(jobs: Jobs, player: Player) -> None:
    plans = {"exit 64": 64, "silent 1": 1, "oom": 137, "seal-and-die": 137, "disrupted": 143}
    player.plan("evaluate-0", *plans)
    for attempt, (plan, code) in enumerate(plans.items(), start=1):
        name = jobs.start(StageName.EVALUATE, attempt)
        assert (jobs.ended(name), jobs.codes(name)) == ("Failed", [code])
        assert bool([result.problem for result in jobs.results(name) if result.problem]) == (plan in ("exit 64", "disrupted"))
    name = jobs.start(StageName.EVALUATE, 9)
    assert (jobs.ended(name), jobs.results(name)[0].found) == ("Complete", True)
    assert player.starts[0] == Start("evaluate-0", 0, 1, player.starts[0].pod, "exit 64")


def test_a_shard_is_retried_within_seconds_and_the_last_one_seals(jobs: Jobs, player: Player) -> None:
    player.plan("sample-1-1", "exit 143", "exit 1", "exit 75")
    indexed: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimitPerIndex": 1,
        "maxFailedIndexes": 0,
    }
    name = jobs.start(StageName.SAMPLE, backoffLimit=None, podFailurePolicy={"rules": [IGNORED]}, **indexed)
    assert jobs.ended(name) == "Complete"
    assert jobs.codes(name) == [0, 0, 1, 75, 143]
    results = jobs.results(name)
    assert [result.shard for result in results if result.artifact is None and result.problem is None] == [0]
    assert len([result for result in results if result.artifact is not None]) == 1


def test_what_hangs_is_told_to_stop_when_it_is_deleted(jobs: Jobs, player: Player) -> None:
    player.plan("evaluate-0", "hang")
    name = jobs.start(StageName.EVALUATE)
    wait_until(running(jobs, name), "its start")
    jobs.delete(name)
    wait_until(lambda: jobs.gone(name), "the end of its Job")
    assert player.store.sealed == {}


def test_what_is_deaf_lives_until_it_is_killed(jobs: Jobs, player: Player) -> None:
    player.plan("evaluate-0", "deaf")
    name = jobs.start(StageName.EVALUATE)
    wait_until(running(jobs, name), "its start")
    jobs.delete(name)
    wait_until(lambda: all("deletionTimestamp" in pod["metadata"] for pod in jobs.pods(name)), "SIGTERM")
    assert not jobs.gone(name)
    player.kill(name)
    wait_until(lambda: jobs.gone(name), "the end of its Job")


def test_it_waits_for_its_configuration_as_a_kubelet_does(jobs: Jobs, player: Player) -> None:
    name = jobs.start(StageName.EVALUATE, configured=False)
    wait_until(lambda: [pod["spec"].get("nodeName") for pod in jobs.pods(name)], "its node")
    assert player.starts == []
    actions = launched(jobs.run, StageName.EVALUATE)
    jobs.configure(next(action for action in actions if isinstance(action, CreateConfigMap)).config, name)
    assert jobs.ended(name) == "Complete"
