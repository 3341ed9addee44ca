"""The test cluster is a real one: what other tests build on holds in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Api, ApiError
from cluster.errors import KubectlError
from cluster.handle import Cluster
from cluster.readiness import answers
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
FINGERPRINT = "ab" * 32
LABELS = {
    "app.kubernetes.io/managed-by": "rlhf-operator",
    "rlhf.dev/stage": "evaluate",
    "rlhf.dev/attempt": "2",
    "rlhf.dev/iteration": "1",
}


def pod(name: str, annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Json:
    container = {
        "name": "stage",
        "image": "example/rlhf-operator:0.1.0",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": LABELS if labels is None else labels,
            "annotations": {"rlhf.dev/fingerprint": FINGERPRINT, **(annotations or {})},
        },
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            **spec,
        },
    }


@pytest.fixture
def make(cluster: Cluster, namespace: str) -> Callable[..., str]:
    """Makes a pod; its path."""

    def made(name: str, **options: Any) -> str:
        cluster.api.post(f"/api/v1/namespaces/{namespace}/pods", pod(name, **options))
        return f"/api/v1/namespaces/{namespace}/pods/{name}"

    return made


def ended(cluster: Cluster, path: str) -> tuple[Json, Json]:
    """Its status, and how its container ended."""

    def status() -> Json | None:
        found: Json = cluster.api.get(path)["status"]
        return found if found.get("phase") in ("Succeeded", "Failed") else None

    found = wait_until(status, f"the end of {path}")
    return found, found["containerStatuses"][0]["state"]["terminated"]


def test_it_is_the_kubernetes_that_it_is_built_from(cluster: Cluster) -> None:
    assert json.loads(cluster.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"].startswith("v1.")
    nodes = json.loads(cluster.kubectl("get", "nodes", "-l", "type=kwok", "-o", "json"))["items"]
    assert {node["status"]["allocatable"]["nvidia.com/gpu"] for node in nodes} == {"8"}


def test_pods_that_are_not_hardened_are_refused(cluster: Cluster, namespace: str) -> None:
    bare = pod("bare")
    del bare["spec"]["securityContext"]
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        cluster.apply(bare, namespace=namespace)


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", "-n", namespace)
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader", "-n", namespace)
    reader = Api(cluster.kubeconfig_of(namespace, "reader", tmp_path))
    wait_until(lambda: allowed(reader, f"/api/v1/namespaces/{namespace}/pods"), "its role")
    with pytest.raises(ApiError, match=f"system:serviceaccount:{namespace}:reader.*cannot list resource .secrets"):
        reader.get(f"/api/v1/namespaces/{namespace}/secrets")


def allowed(api: Api, path: str) -> bool:
    try:
        api.get(path)
    except ApiError as error:
        if error.status != 403:
            raise
        return False
    return True


def test_a_stage_ends_well_with_the_result_that_it_would_leave(cluster: Cluster, make: Callable[..., str]) -> None:
    status, end = ended(cluster, make("well"))
    assert (status["phase"], end["exitCode"]) == ("Succeeded", 0)
    assert json.loads(end["message"]) == {
        "stage": "evaluate",
        "attempt": 2,
        "artifact": {"kind": "evaluation", "fingerprint": FINGERPRINT, "digest": FINGERPRINT},
        "metrics": {"winRateVsInitial": {"value": 0.6}, "winRateVsPrevious": {"value": 0.6}},
    }


def test_a_stage_ends_as_its_annotation_says(cluster: Cluster, make: Callable[..., str]) -> None:
    plans = {
        "exit-1": ("Failed", 1, "Error", True),
        "exit-64": ("Failed", 64, "Error", True),
        "silent-75": ("Failed", 75, "Error", False),
        "no-result": ("Succeeded", 0, "Completed", False),
        "oom": ("Failed", 137, "OOMKilled", False),
        "disrupted": ("Failed", 143, "Error", True),
    }
    paths = {plan: make(plan, annotations={"test.rlhf.dev/plan": plan}) for plan in plans}
    ends = {plan: ended(cluster, path) for plan, path in paths.items()}
    assert {
        plan: (status["phase"], end["exitCode"], end["reason"], bool(json.loads(end.get("message", "") or "{}").get("problem")))
        for plan, (status, end) in ends.items()
    } == plans
    conditions = ends["disrupted"][0]["conditions"]
    assert ("DisruptionTarget", "True") in {(condition["type"], condition["status"]) for condition in conditions}


def test_a_stage_takes_as_long_as_its_annotation_says(cluster: Cluster, make: Callable[..., str]) -> None:
    long = make("long", annotations={"test.rlhf.dev/takes": "1h"})
    assert ended(cluster, make("short", annotations={"test.rlhf.dev/takes": "10ms"}))[1]["exitCode"] == 0
    wait_until(lambda: cluster.api.get(long)["status"]["phase"] == "Running", "its start")
    assert ended(cluster, make("usual"))[1]["exitCode"] == 0
    assert cluster.api.get(long)["status"]["phase"] == "Running"


def test_a_plan_can_be_for_the_first_attempts_only(cluster: Cluster, make: Callable[..., str]) -> None:
    planned = make("planned", annotations={"test.rlhf.dev/plan": "exit-1", "test.rlhf.dev/attempts": "2"})
    past = make("past", annotations={"test.rlhf.dev/plan": "exit-1", "test.rlhf.dev/attempts": "1"})
    assert ended(cluster, planned)[1]["exitCode"] == 1
    assert ended(cluster, past)[1]["exitCode"] == 0


def test_a_stage_that_hangs_runs_until_it_is_deleted(cluster: Cluster, namespace: str, make: Callable[..., str]) -> None:
    path = make("hangs", annotations={"test.rlhf.dev/plan": "hang"})
    wait_until(lambda: cluster.api.get(path)["status"]["phase"] == "Running", "its start")
    seen = cluster.api.watch(f"/api/v1/namespaces/{namespace}/pods", "0")
    cluster.api.delete(path)
    for kind, found in seen:
        states = [container["state"] for container in found["status"].get("containerStatuses", [])]
        if kind == "DELETED":
            break
    seen.close()
    assert [state["terminated"]["exitCode"] for state in states] == [143]
    assert cluster.api.find(path) is None


def test_a_stage_can_wait_for_its_image_or_its_secret(cluster: Cluster, make: Callable[..., str]) -> None:
    reasons = {"image": "ImagePullBackOff", "config": "CreateContainerConfigError"}
    paths = {plan: make(f"waits-{plan}", annotations={"test.rlhf.dev/plan": plan}) for plan in reasons}

    def reason(path: str) -> str | None:
        for container in cluster.api.get(path)["status"].get("containerStatuses", []):
            waiting: str | None = container["state"].get("waiting", {}).get("reason")
            return waiting
        return None

    assert {plan: wait_until(lambda path=path: reason(path), path) for plan, path in paths.items()} == reasons  # type: ignore[misc]
    for path in paths.values():
        cluster.api.delete(path)
        wait_until(lambda path=path: cluster.api.find(path) is None, f"the end of {path}")  # type: ignore[misc]


def test_a_pod_that_fits_nowhere_waits_with_the_schedulers_words(cluster: Cluster, make: Callable[..., str]) -> None:
    greedy = {"limits": {"nvidia.com/gpu": "9"}}
    container = pod("x")["spec"]["containers"][0] | {"resources": greedy}
    path = make("greedy", containers=[container])

    def words() -> str | None:
        for condition in cluster.api.get(path)["status"].get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{condition['reason']}: {condition['message']}"
        return None

    assert "Insufficient nvidia.com/gpu" in wait_until(words, "the scheduler's word")
    with cluster.node(gpus=16):
        assert ended(cluster, path)[1]["exitCode"] == 0


def test_the_scheduler_preempts_a_pod_for_one_of_higher_priority(
    cluster: Cluster, namespace: str, make: Callable[..., str]
) -> None:
    wants = {"containers": [pod("x")["spec"]["containers"][0] | {"resources": {"limits": {"nvidia.com/gpu": "1"}}}]}
    hang = {"test.rlhf.dev/plan": "hang"}
    urgent: Json = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": f"urgent-{namespace}"},
        "value": 1000,
    }
    cluster.apply(urgent)
    try:
        with cluster.node(gpus=1) as node:
            place = wants | {"nodeSelector": {"kubernetes.io/hostname": node}}
            victim = make("victim", annotations=hang, **place)
            wait_until(lambda: cluster.api.get(victim)["status"]["phase"] == "Running", "its start")
            seen = cluster.api.watch(f"/api/v1/namespaces/{namespace}/pods", "0", fieldSelector="metadata.name=victim")
            winner = make("winner", annotations=hang, priorityClassName=urgent["metadata"]["name"], **place)
            last = next(found for kind, found in seen if kind == "DELETED")
            seen.close()
            wait_until(lambda: cluster.api.get(winner)["status"]["phase"] == "Running", "the start of the other")
    finally:
        cluster.kubectl("delete", "priorityclass", urgent["metadata"]["name"])
    [disrupted] = [condition for condition in last["status"]["conditions"] if condition["type"] == "DisruptionTarget"]
    assert (disrupted["status"], disrupted["reason"]) == ("True", "PreemptionByScheduler")
    assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143


def test_pods_of_others_run_until_they_are_deleted(cluster: Cluster, make: Callable[..., str]) -> None:
    serves = make("serves", labels={"app": "other"}, restartPolicy="Always")
    once = make("once", labels={"app": "other"})
    assert ended(cluster, once)[1]["exitCode"] == 0
    assert cluster.api.get(serves)["status"]["phase"] == "Running"


def test_kubectl_logs_shows_what_a_test_wrote(cluster: Cluster, namespace: str, make: Callable[..., str]) -> None:
    path = make("talks", annotations={"test.rlhf.dev/plan": "hang"})
    wait_until(lambda: cluster.api.get(path)["status"]["phase"] == "Running", "its start")
    cluster.write_log(namespace, "talks", "step 1\nstep 2\n", ended=True)
    assert cluster.kubectl("logs", "talks", "-n", namespace) == "step 1\nstep 2\n"
    assert cluster.kubectl("logs", "talks", "-n", namespace, "--tail=1") == "step 2\n"
    assert cluster.kubectl("logs", "-f", "talks", "-n", namespace) == "step 1\nstep 2\n"


def test_who_asked_what_is_known(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "asked-for", "-n", namespace)
    [request] = [request for request in cluster.requests() if (request.namespace, request.name) == (namespace, "asked-for")]
    assert (request.verb, request.resource, request.namespace, request.status) == ("create", "configmaps", namespace, 201)
    assert request.user == "admin"
    assert request.agent.startswith("kubectl")


def test_the_definition_of_runs_is_known_to_it(cluster: Cluster, crd: None) -> None:
    assert "rlhfruns" in cluster.kubectl("api-resources", "--api-group=rlhf.dev", "-o", "name")


def test_etcd_answers_only_who_has_a_certificate(cluster: Cluster) -> None:
    """What is written there no admission sees: a pod with the whole machine in it would run."""
    at = cluster.layout.addresses
    url = f"https://{at.host}:{at.etcd}/version"
    assert answers(url, cluster.layout.pki / "etcd")
    assert not answers(url)
    assert not answers(url.replace("https", "http"))
    assert not answers(f"https://{at.host}:{at.peer}/version")
