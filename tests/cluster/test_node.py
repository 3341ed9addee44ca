"""The real node is one: what runs there is what a cluster would run, with a kubelet's word on how it went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from cluster.node_handle import API_SERVER, NodeCluster
from rlhf_operator.core.observed import Pod, PodState
from rlhf_operator.kubernetes.api.client import Cluster
from rlhf_operator.kubernetes.api.resources import PODS
from rlhf_operator.kubernetes.objects.observation import pod_of
from support import images
from support.binaries import program
from support.waiting import wait_until

pytestmark = pytest.mark.node

Json = dict[str, Any]
IMAGE = "localhost/probe:1"
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
#: On a machine that runs something beside it.
PATIENCE = 120.0


@pytest.fixture(scope="module")
def image(node_cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    archive = tmp_path_factory.mktemp("image") / "probe.tar"
    images.write(archive, IMAGE, program("probe"))
    node_cluster.import_image(archive)
    return IMAGE


@pytest.fixture
def namespace(node_cluster: NodeCluster) -> Iterator[str]:
    """Restricted Pod Security is enforced in it."""
    with node_cluster.namespace() as name:
        yield name


def job(name: str, *steps: str, memory: str = "64Mi", pods: int = 1) -> list[Json]:
    """An Indexed Job whose pods do these steps (support/programs/probe.go), and the headless Service that names them."""
    container = {
        "name": "stage",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": list(steps),
        "resources": {"limits": {"cpu": "500m", "memory": memory}},
        "securityContext": HARDENED,
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    template = {
        "restartPolicy": "Never",
        "subdomain": name,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    }
    spec = {
        "completions": pods,
        "parallelism": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": template},
    }
    names = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": names},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec},
    ]


def ended(cluster: NodeCluster, namespace: str, name: str) -> list[Json]:
    """How the containers of a Job's pods ended, in the order of their index; the Job says that it is over."""

    def over() -> bool:
        conditions = cluster.api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}")["status"].get("conditions", [])
        return any(found["type"] in ("Complete", "Failed") and found["status"] == "True" for found in conditions)

    wait_until(over, f"the end of Job {name} in namespace {namespace}", seconds=PATIENCE)
    pods = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"job-name={name}")["items"]
    pods.sort(key=lambda pod: pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])
    return [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods]


def phases(cluster: NodeCluster, namespace: str, name: str) -> list[str]:
    pods = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"job-name={name}")["items"]
    return [pod["status"].get("phase", "") for pod in pods]


def logs(cluster: NodeCluster, namespace: str, name: str) -> str:
    return cluster.kubectl("logs", "-n", namespace, "--tail=-1", "-l", f"job-name={name}")


def test_a_hardened_pod_runs_and_its_end_is_told(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    steps = ["who", "refused=/here", "write=/scratch/here", 'message={"metric": 1}', "exit=75"]
    node_cluster.apply(*job("told", *steps), namespace=namespace)
    [end] = ended(node_cluster, namespace, "told")
    assert (end["exitCode"], end["reason"], end["message"]) == (75, "Error", '{"metric": 1}')
    assert logs(node_cluster, namespace, "told") == "user 1000\n"


def test_pods_of_a_job_find_each_other_the_api_server_and_s3(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    first = f"pair-0.pair.{namespace}.svc.cluster.local"
    s3 = node_cluster.s3.endpoint_url
    before = len(node_cluster.s3.requests())
    node_cluster.apply(
        *job("pair", f"lookup={first}", "reach=10.96.0.1:443", f"get={s3}/rlhf-test/none", pods=2), namespace=namespace
    )
    ends = ended(node_cluster, namespace, "pair")
    assert [end["exitCode"] for end in ends] == [0, 0], logs(node_cluster, namespace, "pair")
    lines = logs(node_cluster, namespace, "pair").splitlines()
    assert len([line for line in lines if line.startswith(f"{first} is 10.244.0.")]) == 2
    assert lines.count("reached 10.96.0.1:443") == 2
    assert lines.count(f"{s3}/rlhf-test/none answered 403") == 2
    assert [request.status for request in node_cluster.s3.requests()[before:]] == [403, 403]


def test_pods_reach_each_other_by_the_address_of_a_service(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    [_, serves] = job("serves", "serve=8080")
    spec = {"selector": {"job-name": "serves"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "serves"}, "spec": spec}
    url = f"http://serves.{namespace}.svc.cluster.local/"
    node_cluster.apply(serves, service, *job("asks", f"get={url}"), namespace=namespace)
    assert [end["exitCode"] for end in ended(node_cluster, namespace, "asks")] == [0], logs(node_cluster, namespace, "asks")
    assert logs(node_cluster, namespace, "asks") == f"{url} answered 200\n"


def test_a_container_over_its_memory_limit_is_killed_and_called_so(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    node_cluster.apply(*job("greedy", "say=hungry", "eat=200", memory="64Mi"), namespace=namespace)
    [end] = ended(node_cluster, namespace, "greedy")
    assert (end["exitCode"], end["reason"]) == (137, "OOMKilled")


def test_a_pod_that_is_deleted_is_told_to_stop(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    node_cluster.apply(*job("holds", "say=holding", "hold"), namespace=namespace)
    wait_until(lambda: "Running" in phases(node_cluster, namespace, "holds"), "its start", seconds=PATIENCE)
    wait_until(lambda: logs(node_cluster, namespace, "holds") == "holding\n", "its word", seconds=PATIENCE)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    seen = node_cluster.api.watch(pods, "0")
    node_cluster.api.delete(f"/apis/batch/v1/namespaces/{namespace}/jobs/holds", propagationPolicy="Foreground")
    states: list[Json] = []
    for kind, found in seen:
        states += [status["state"] for status in found["status"].get("containerStatuses", [])]
        if kind == "DELETED":
            break
    seen.close()
    assert states[-1]["terminated"]["exitCode"] == 143


def beside(sidecar: str, *, native: bool) -> list[Json]:
    """A Job whose stage ends well at once, with a container beside it that does this step."""
    service, made = job("meshed", "say=done")
    pod = made["spec"]["template"]["spec"]
    container = {**pod["containers"][0], "name": "mesh-proxy", "args": [sidecar]}
    if native:
        pod["initContainers"] = [{**container, "restartPolicy": "Always"}]
    else:
        pod["containers"].append(container)
    return [service, made]


def test_a_plain_sidecar_keeps_its_pod_until_that_is_let_go(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    node_cluster.apply(*beside("hold", native=False), namespace=namespace)
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def lingers() -> Pod | None:
        found = [pod_of(pod) for pod in node_cluster.api.get(pods, labelSelector="job-name=meshed")["items"]]
        return next((pod for pod in found if pod.lingers), None)

    found = wait_until(lingers, "the end of its stage", seconds=PATIENCE)
    assert found is not None
    assert (found.state, found.exit_code, found.beside) == (PodState.SUCCEEDED, 0, ("mesh-proxy",))
    assert phases(node_cluster, namespace, "meshed") == ["Running"]
    connection = Cluster.connect(node_cluster.kubeconfig, namespace=namespace)
    connection.delete(PODS, namespace, found.name, uid=found.uid, grace_seconds=30)
    wait_until(lambda: not phases(node_cluster, namespace, "meshed"), "the end of its pod", seconds=PATIENCE)


def test_a_kubelet_ends_a_native_sidecar_by_itself(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    node_cluster.apply(*beside("hold", native=True), namespace=namespace)
    [end] = ended(node_cluster, namespace, "meshed")
    assert end["exitCode"] == 0
    assert phases(node_cluster, namespace, "meshed") == ["Succeeded"]


def test_the_images_that_pods_can_have_are_those_that_were_imported(node_cluster: NodeCluster, image: str) -> None:
    assert {image, "localhost/pause:1"} <= set(node_cluster.images())


def test_pods_go_on_while_the_api_server_is_away(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    gate = f"gate-{namespace}"
    with node_cluster.outage("s3"):
        node_cluster.apply(*job("alone", f"get={node_cluster.s3.endpoint_url}/rlhf-test/{gate}", "exit=3"), namespace=namespace)
        wait_until(lambda: "Running" in phases(node_cluster, namespace, "alone"), "its start", seconds=PATIENCE)
        node_cluster.stop(API_SERVER)
    try:
        wait_until(lambda: gate in [request.key for request in node_cluster.s3.requests()], f"the pod's request for {gate}")
        assert not node_cluster.is_ready()
    finally:
        node_cluster.start(API_SERVER)
    assert [end["exitCode"] for end in ended(node_cluster, namespace, "alone")] == [3]


def test_a_server_can_fall_silent_and_wake(node_cluster: NodeCluster, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=node_cluster.s3.endpoint_url, region_name="us-east-1")
    with node_cluster.outage("s3", silent=True):
        assert node_cluster.component("s3").running
    node_cluster.restart("s3")
    assert "rlhf-test" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    with node_cluster.outage(API_SERVER, silent=True):
        assert node_cluster.component(API_SERVER).running
    assert json.loads(node_cluster.kubectl("get", "node", node_cluster.node_name, "-o", "json"))["metadata"]["name"] == "node"


def test_a_kubelet_can_fall_silent_while_its_pods_go_on(node_cluster: NodeCluster, image: str, namespace: str) -> None:
    gate = f"gate-{namespace}"
    with node_cluster.outage("s3"):
        node_cluster.apply(*job("alive", f"get={node_cluster.s3.endpoint_url}/rlhf-test/{gate}"), namespace=namespace)
        wait_until(lambda: "Running" in phases(node_cluster, namespace, "alive"), "its start", seconds=PATIENCE)
        node_cluster.silence("kubelet")
    try:
        wait_until(lambda: gate in [request.key for request in node_cluster.s3.requests()], f"the pod's request for {gate}")
        assert phases(node_cluster, namespace, "alive") == ["Running"]
    finally:
        node_cluster.start("kubelet")
    assert [end["exitCode"] for end in ended(node_cluster, namespace, "alive")] == [0]
