"""The operator as the chart sets it up: the variables of its Deployment, and no permission but that of its ServiceAccount."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.api import Api, ApiError
from cluster.errors import KubectlError
from cluster.handle import Cluster, Request
from support.helm import Helm
from support.installed import Installed, installed
from support.operated_runs import ClusterRun
from support.operator_process import OperatorProcess, errors

pytestmark = pytest.mark.cluster


@dataclass(frozen=True)
class Scene:
    release: Installed
    operator: OperatorProcess
    token: Path
    """A kubeconfig with the operator's permissions."""
    runs: str
    """Namespace of the runs."""
    other: str
    """A namespace that a namespaced operator has nothing to do with."""
    everywhere: bool


@pytest.fixture(scope="module", params=["cluster", "namespaced"])
def scene(request: pytest.FixtureRequest, cluster: Cluster, crd: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("installed")
    everywhere = request.param == "cluster"
    with cluster.namespace() as home, cluster.namespace() as runs, cluster.namespace() as other:
        values = {"watch": {"namespaces": [] if everywhere else [runs]}, "crds": {"install": False}}
        with (
            installed(cluster, Helm(folder, cluster.kubeconfig), home, values) as release,
            release.operator(folder) as operator,
        ):
            operator.wait_leading()
            yield Scene(release, operator, release.kubeconfig(folder), runs, other, everywhere)


def test_it_drives_a_whole_run_and_is_refused_nothing(cluster: Cluster, scene: Scene) -> None:
    """With every kind of child: shards, and a training on two nodes."""
    run = ClusterRun(cluster, scene.runs, "whole")
    run.create(iterations=1, sample={"shards": 2, "parallelism": 2}, train={"compute": {"nodes": 2}})
    run.until_phase("Succeeded", seconds=300)
    assert {child["metadata"]["labels"]["app.kubernetes.io/managed-by"] for child in run.children()} == {"rlhf-operator"}
    assert run.events()
    assert refused(cluster, scene) == []
    told = [json.dumps(line) for line in errors(scene.operator.lines())]
    # A busy machine's API server may answer late, which is a disturbance and no refusal.
    assert [line for line in told if scene.runs in line and "cannot be reached" not in line] == []


def test_it_removes_what_a_run_has_made(cluster: Cluster, scene: Scene) -> None:
    run = ClusterRun(cluster, scene.runs, "short").create(iterations=1, ttlSecondsAfterFinished=0)
    run.until_phase("Succeeded", seconds=300)
    run.until("its children removed", lambda _: not run.children())
    assert refused(cluster, scene) == []


def refused(cluster: Cluster, scene: Scene) -> list[Request]:
    """By the audit log, in the runs' namespace: others, that are going, forbid all writes."""
    user = f"system:serviceaccount:{scene.release.namespace}:{scene.release.service_account}"
    return [asked for asked in cluster.requests() if (asked.user, asked.namespace, asked.status) == (user, scene.runs, 403)]


def test_it_cannot_read_a_secret(cluster: Cluster, scene: Scene) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s3-credentials"},
        "stringData": {"AWS_ACCESS_KEY_ID": "a"},
    }
    cluster.apply(secret, namespace=scene.runs)
    for namespace in (scene.runs, scene.release.namespace):
        for verb in ("get", "list", "watch"):
            with pytest.raises(KubectlError):
                cluster.kubectl("--kubeconfig", str(scene.token), "auth", "can-i", verb, "secrets", "-n", namespace)
    with pytest.raises(ApiError, match="403 Forbidden"):
        Api(scene.token).get(f"/api/v1/namespaces/{scene.runs}/secrets/s3-credentials")
    # So that the answers above are those of this token, and not of one that may do nothing.
    assert cluster.kubectl("--kubeconfig", str(scene.token), "auth", "can-i", "create", "jobs.batch", "-n", scene.runs) == "yes\n"


@pytest.mark.parametrize(
    ("verb", "group", "resource", "subresource"),
    [
        ("get", "", "pods", "log"),
        ("create", "", "pods", "exec"),
        ("create", "", "pods", ""),
        ("patch", "", "pods", ""),
        ("create", "", "pods", "eviction"),
        ("create", "", "serviceaccounts", "token"),
        ("list", "", "namespaces", ""),
        ("list", "", "nodes", ""),
        ("patch", "rlhf.dev", "rlhfruns", ""),
        ("delete", "rlhf.dev", "rlhfruns", ""),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        ("patch", "apiextensions.k8s.io", "customresourcedefinitions", ""),
        ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
        ("create", "apps", "deployments", ""),
        ("deletecollection", "batch", "jobs", ""),
    ],
)
def test_it_may_not(scene: Scene, verb: str, group: str, resource: str, subresource: str) -> None:
    for namespace in (scene.runs, scene.release.namespace, ""):
        assert not allowed(scene, namespace, verb, group, resource, subresource=subresource)


def test_its_lease_is_the_only_one_that_it_may_take(scene: Scene) -> None:
    own = scene.release.environment["RLHF_OPERATOR_LEASE_NAME"]
    assert allowed(scene, scene.release.namespace, "patch", "coordination.k8s.io", "leases", name=own)
    assert not allowed(scene, scene.release.namespace, "patch", "coordination.k8s.io", "leases", name="another")
    assert not allowed(scene, scene.runs, "get", "coordination.k8s.io", "leases", name=own)


def test_a_namespaced_operator_may_do_nothing_elsewhere(scene: Scene) -> None:
    for verb, group, resource in (("list", "rlhf.dev", "rlhfruns"), ("create", "batch", "jobs"), ("list", "", "pods")):
        assert allowed(scene, scene.runs, verb, group, resource)
        for namespace in (scene.other, ""):
            assert allowed(scene, namespace, verb, group, resource) == scene.everywhere


def test_helm_test_tells_an_operator_that_answers_from_one_that_does_not(scene: Scene) -> None:
    """The program of its pod, here: nobody runs pods in this cluster."""
    assert scene.release.run_helm_test(scene.operator.url).count("is well") == 3
    with pytest.raises(subprocess.CalledProcessError) as failed:
        scene.release.run_helm_test("http://127.0.0.1:9")
    assert "http://127.0.0.1:9/livez does not answer" in failed.value.stderr
    assert f"kubectl -n {scene.release.namespace} logs deploy/rlhf-operator" in failed.value.stderr


def allowed(scene: Scene, namespace: str, verb: str, group: str, resource: str, **more: str) -> bool:
    """What the API server says to the operator's token; namespace "": in all of them."""
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, **more}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = Api(scene.token).post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
