"""A run that the API server holds and this version's models do not take: it ends with words, and never in a loop of crashes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cluster.api import MERGE_PATCH, Json
from cluster.handle import Cluster as ClusterHandle
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.controller.backend import KubernetesBackend
from rlhf_operator.kubernetes.installation import Installation
from rlhf_operator.kubernetes.objects.keys import Kind, RunKey
from rlhf_operator.kubernetes.watch.index import Index
from support.operated_runs import ClusterRun

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]


class Clock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(cluster: ClusterHandle, namespace: str) -> ClusterRun:
    return ClusterRun(cluster, namespace, "tiny").create()


def observe(cluster: ClusterHandle, run: ClusterRun) -> None:
    """A look at the run through an index in which it has a field that only another version knows."""
    index = Index()
    of_another_version: Json = run.resource
    of_another_version["spec"]["sample"] = {"temperatureOfTomorrow": 1}
    index.put(Kind.RUN, of_another_version)
    key = RunKey(run.namespace, run.name)
    backend = KubernetesBackend(key, Cluster.connect(cluster.kubeconfig), index, Installation(image="example/image:1"), Clock())
    assert backend.observe(live=False) is None


def test_one_that_has_not_begun_fails_and_says_which_field(cluster: ClusterHandle, run: ClusterRun) -> None:
    observe(cluster, run)
    status = run.status
    assert status["phase"] == "Failed"
    assert "spec.sample.temperatureOfTomorrow" in status["message"]
    assert run.condition("Failed")["reason"] == "ConfigurationError"
    assert run.condition("Ready")["status"] == "False"
    observe(cluster, run)
    assert run.status == status


def test_one_that_has_begun_is_told_and_keeps_its_phase(cluster: ClusterHandle, run: ClusterRun) -> None:
    path = f"/apis/rlhf.dev/v1alpha1/namespaces/{run.namespace}/rlhfruns/tiny/status"
    begun = {"phase": "Running", "stages": [{"name": "preflight", "phase": "Running", "attempt": 1}]}
    cluster.api.patch(path, {"status": begun}, MERGE_PATCH)
    observe(cluster, run)
    assert run.status["phase"] == "Running"
    assert run.status["stages"] == begun["stages"]
    assert "cannot read it" in run.status["message"]
