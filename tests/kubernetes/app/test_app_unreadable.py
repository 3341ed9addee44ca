"""A run that the API server holds and this version does not understand, as a newer operator leaves it when a cluster is rolled
back: it is left as it is and told of once, and the others go on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.api import MERGE_PATCH, ApiError, Json
from cluster.handle import Cluster as ClusterHandle
from rlhf_api.words import STATUS_FORMAT
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.controller.backend import KubernetesBackend
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index
from rlhfctl.sources.cluster.source import connect
from rlhfctl.sources.place import Place
from rlhfctl.sources.source import target_of
from support.operated_runs import ClusterRun
from support.operator_process import OperatorProcess, errors
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rlhfruns.rlhf.dev"
BEGUN: Json = {"phase": "Running", "image": "example/image:2", "stages": [{"name": "preflight", "phase": "Running", "attempt": 1}]}
PREPARING: Json = BEGUN | {"phase": "Preparing", "stage": "prepare", "stages": [{"name": "prepare", "phase": "Running"}]}
#: A newer version's own field, which an older CRD cuts off, and the number that it writes for that.
OTHER_FIELD: Json = BEGUN | {"format": STATUS_FORMAT + 1, "preparation": {"share": 1}}


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(cluster: ClusterHandle, namespace: str) -> ClusterRun:
    return ClusterRun(cluster, namespace, "tiny").create()


def observe(cluster: ClusterHandle, run: ClusterRun, change: Callable[[Json], object]) -> None:
    """A look at the run, by an operator that has just started, through an index in which `change` was done to it."""
    index = Index()
    of_another_version: Json = run.resource
    change(of_another_version)
    index.put(Kind.RUN, of_another_version)
    key = RunKey(run.namespace, run.name)
    backend = KubernetesBackend(key, Cluster.connect(cluster.kubeconfig), index, Installation(image="example/image:1"), Clock())
    assert backend.observe(live=False) is None


def warnings(run: ClusterRun) -> list[str]:
    return [event["message"] for event in run.events() if event["type"] == "Warning"]


def write_status(cluster: ClusterHandle, run: ClusterRun, status: Json) -> None:
    path = f"/apis/rlhf.dev/v1alpha1/namespaces/{run.namespace}/rlhfruns/{run.name}/status"
    cluster.api.patch(path, {"status": status}, MERGE_PATCH)


@contextmanager
def newer_crd(cluster: ClusterHandle) -> Iterator[None]:
    """The CRD of a version with a stage, a phase and a field more; what is written meanwhile stays when it is rolled back."""
    before = cluster.api.get(CRD)["spec"]["versions"]
    newer = copy.deepcopy(before)
    status = newer[0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    status["phase"]["enum"].append("Preparing")
    for stage in (status["stage"], status["stages"]["items"]["properties"]["name"]):
        stage["enum"].append("prepare")
    status["preparation"] = {"type": "object", "properties": {"share": {"type": "integer"}}}
    cluster.api.patch(CRD, {"spec": {"versions": newer}}, MERGE_PATCH)
    try:
        yield
    finally:
        cluster.api.patch(CRD, {"spec": {"versions": before}}, MERGE_PATCH)


@pytest.fixture
def rolled_back(cluster: ClusterHandle, namespace: str) -> tuple[ClusterRun, ClusterRun]:
    """One run in a phase and a stage that are none here, with the Job of that stage; one with a field that an older CRD cuts."""
    words, field = (ClusterRun(cluster, namespace, name).create() for name in ("words", "field"))

    def written() -> bool:
        with suppress(ApiError):
            write_status(cluster, words, PREPARING)
            write_status(cluster, field, OTHER_FIELD)
        return words.status.get("phase") == "Preparing" and "preparation" in field.status

    with newer_crd(cluster):
        wait_until(written, "the newer CRD to be served", seconds=60)
    wait_until(lambda: "preparation" not in field.status, "the older CRD to be served", seconds=60)
    cluster.api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job_of(words, "words-i0-prepare-1"))
    return words, field


def children(run: ClusterRun) -> list[tuple[str, str, bool]]:
    """Name, uid, and whether it is going; its controller may write the rest."""
    found = [child["metadata"] for child in run.children()]
    return [(metadata["name"], metadata["uid"], "deletionTimestamp" in metadata) for metadata in found]


def job_of(run: ClusterRun, name: str) -> Json:
    owner = {"apiVersion": "rlhf.dev/v1alpha1", "kind": "RLHFRun", "name": run.name, "uid": run.uid, "controller": True}
    labels = {"app.kubernetes.io/managed-by": "rlhf-operator", "rlhf.dev/run": run.name, "rlhf.dev/stage": "prepare"}
    pod = {"restartPolicy": "Never", "containers": [{"name": "stage", "image": "example/image:2"}]}
    metadata = {"name": name, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}


def test_after_a_rollback_they_are_left_as_they_are_and_told_of_once_while_others_go_on(
    cluster: ClusterHandle, namespace: str, rolled_back: tuple[ClusterRun, ClusterRun], tmp_path: Path
) -> None:
    before = [(run.resource, children(run)) for run in rolled_back]
    told = ["status.phase is 'Preparing' (and 2 more)", f"status.format is {STATUS_FORMAT + 1}"]

    def untouched() -> None:
        assert [(run.resource, children(run)) for run in rolled_back] == before
        for run, words in zip(rolled_back, told, strict=True):
            [warning] = warnings(run)
            assert words in warning
            assert "Upgrade the operator" in warning
            assert "example/image:2" in warning

    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace], LEASE_SECONDS="60") as operator:
        operator.wait_leading()
        ClusterRun(cluster, namespace, "other").create(iterations=1).until_phase("Succeeded")
        wait_until(lambda: operator.metric("rlhf_untouched_runs") == 2, "both to be told of", seconds=60)
        # Whatever happens to one of them is a round more.
        rounds = operator.metric("rlhf_reconcile_seconds_count")
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/words-i0-prepare-1"
        cluster.api.patch(path, {"metadata": {"labels": {"a": "b"}}}, MERGE_PATCH)
        wait_until(lambda: operator.metric("rlhf_reconcile_seconds_count") > rounds, "a round more", seconds=60)
        untouched()
        lines = errors(operator.lines())
        assert sorted(line["run"] for line in lines) == [f"{namespace}/field", f"{namespace}/words"]
        assert all("is not understood" in line["message"] for line in lines)
        operator.stop()
        operator.start()
        operator.wait_leading()
        wait_until(lambda: operator.metric("rlhf_untouched_runs") == 2, "both to be told of", seconds=60)
        untouched()
        # The version that knows the words is back, and has done its part.
        write_status(cluster, rolled_back[0], {**dict.fromkeys(PREPARING), "message": ""})
        cluster.kubectl("delete", "job", "words-i0-prepare-1", "-n", namespace)
        rolled_back[0].until_phase("Running")
        rolled_back[1].delete()
        wait_until(lambda: operator.metric("rlhf_untouched_runs") == 0, "nothing to be left alone", seconds=60)


def test_one_can_be_deleted_and_takes_its_jobs_along(
    cluster: ClusterHandle, namespace: str, rolled_back: tuple[ClusterRun, ClusterRun], tmp_path: Path
) -> None:
    run, _ = rolled_back
    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace], LEASE_SECONDS="60") as operator:
        operator.wait_leading()
        wait_until(lambda: warnings(run), "it to be told of", seconds=60)
        place = Place(kubeconfig=str(cluster.kubeconfig), namespace=namespace)
        source = connect(place, lambda _: None)
        target = target_of(source, run.name)
        assert source.deletion(target).startswith("it is Preparing and stops after a checkpoint; its artifacts stay in s3://")
        assert not source.delete(target)
        source.wait_until_gone(target, 60)
        assert (run.find(), run.children()) == (None, [])
        wait_until(lambda: operator.metric("rlhf_untouched_runs") == 1, "it to be forgotten", seconds=60)


def test_a_job_of_a_stage_that_is_none_here_is_not_taken_for_absent(cluster: ClusterHandle, run: ClusterRun) -> None:
    cluster.api.post(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", job_of(run, "tiny-i0-prepare-1"))
    write_status(cluster, run, BEGUN)
    before = run.resource
    key = RunKey(run.namespace, run.name)
    backend = KubernetesBackend(key, Cluster.connect(cluster.kubeconfig), Index(), Installation(image="example/image:1"), Clock())
    for _ in range(2):
        assert backend.observe(live=True) is None
    assert run.resource == before
    [warning] = warnings(run)
    assert "the stage of Job tiny-i0-prepare-1 is 'prepare'" in warning


def test_one_that_no_operator_has_seen_waits_with_a_word_that_is_none_here(cluster: ClusterHandle, run: ClusterRun) -> None:
    for _ in range(2):
        observe(cluster, run, lambda raw: raw["spec"].update(sample={"temperatureOfTomorrow": 1}))
    assert run.status == {}
    [warning] = warnings(run)
    assert "spec.sample has a field 'temperatureOfTomorrow'" in warning


def test_one_that_no_operator_has_seen_fails_where_a_value_is_none(cluster: ClusterHandle, run: ClusterRun) -> None:
    def change(raw: Json) -> None:
        raw["spec"]["iterations"] = 51

    observe(cluster, run, change)
    status = run.status
    assert status["phase"] == "Failed"
    assert "spec.iterations is no value of it" in status["message"]
    assert run.condition("Failed")["reason"] == "ConfigurationError"
    assert run.condition("Ready")["status"] == "False"
    observe(cluster, run, change)
    assert (run.status, warnings(run)) == (status, [])


def test_one_that_has_begun_is_left_alone_where_a_value_is_none(cluster: ClusterHandle, run: ClusterRun) -> None:
    write_status(cluster, run, BEGUN)
    before = run.resource
    observe(cluster, run, lambda raw: raw["spec"].update(iterations=51))
    assert run.resource == before
    assert len(warnings(run)) == 1


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled"])
def test_of_one_that_has_ended_nothing_is_said(cluster: ClusterHandle, run: ClusterRun, phase: str) -> None:
    write_status(cluster, run, BEGUN | {"phase": phase})
    observe(cluster, run, lambda raw: raw["status"].update(preparation={}))
    assert warnings(run) == []
