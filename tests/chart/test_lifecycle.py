"""Install, upgrade, uninstall on a real API server: what is there at each step, and what is left."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import KubectlError
from cluster.handle import Cluster
from support.helm import CHART, Helm, HelmError, Values
from support.manifests import manifest
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

CRD = "crd/rlhfruns.rlhf.dev"
#: Of a CRD that another release has left, or that `kubectl apply` has made, perhaps in another version.
TAKE_OVER = ["--take-ownership", "--force-conflicts"]
#: A release is one Secret of at most 1 MiB, and the CRD is in it twice.
MOST_BYTES = 256 * 1024
#: What comes and goes by itself, and what belongs to no namespace and to none of us.
_RESTLESS = {"events", "nodes", "namespaces", "csinodes", "apiservices", "componentstatuses"}


@pytest.fixture
def installer(cluster: Cluster, tmp_path: Path) -> Helm:
    return Helm(tmp_path, cluster.kubeconfig)


@pytest.fixture
def home(cluster: Cluster) -> Iterator[str]:
    """The releases' namespace, as restricted as that of the runs."""
    with cluster.namespace() as name:
        yield name


@pytest.mark.parametrize("mode", ["cluster", "namespaced"])
def test_a_release_comes_changes_and_goes_and_leaves_the_crd_and_the_runs(
    cluster: Cluster, installer: Helm, home: str, namespace: str, mode: str
) -> None:
    values: Values = {
        "watch": {"namespaces": [namespace] if mode == "namespaced" else []},
        "metrics": {"dashboard": {"enabled": True}},
    }
    before = snapshot(cluster, home, namespace)

    said = installer("install", "first", str(CHART), "-n", home, "--wait", "--timeout=2m", *adopting(cluster), values=values)
    assert f"kubectl -n {home} rollout status deployment/first-rlhf-operator" in said
    there = snapshot(cluster, home, namespace) - before
    assert {name for place, name in there if place == namespace} == (
        {"roles/first-rlhf-operator", "rolebindings/first-rlhf-operator"} if mode == "namespaced" else set()
    )
    assert {name for place, name in there if "clusterrole" in name} == (
        {f"clusterroles/first-rlhf-operator{end}" for end in ("", "-viewer", "-editor")}
        | {"clusterrolebindings/first-rlhf-operator"}
        if mode == "cluster"
        else set()
    )
    assert cluster.kubectl("get", CRD, "-o", r"jsonpath={.metadata.annotations.helm\.sh/resource-policy}") == "keep"
    assert size_of_release(cluster, home) < MOST_BYTES
    installer("test", "first", "-n", home, "--timeout=1m")
    assert "pods/first-rlhf-operator-test" not in {name for _, name in snapshot(cluster, home)}

    run = manifest({"metadata.name": "stays", "metadata.namespace": namespace})
    cluster.apply(run)
    changed = {**values, "operator": {"workers": 3}, "crds": {"install": False}, "metrics": {"dashboard": {"enabled": False}}}
    installer("upgrade", "first", str(CHART), "-n", home, "--wait", "--timeout=2m", values=changed)
    assert '"3"' in cluster.kubectl(
        "-n", home, "get", "deployment/first-rlhf-operator", "-o", "jsonpath={..env[?(@.name=='RLHF_OPERATOR_WORKERS')]}"
    )
    assert "configmaps/first-rlhf-operator-dashboard" not in {name for _, name in snapshot(cluster, home)}
    cluster.kubectl("get", CRD)

    installer("uninstall", "first", "-n", home, "--wait", "--timeout=2m")
    left = {("", "customresourcedefinitions/rlhfruns.rlhf.dev"), (namespace, "rlhfruns/stays")}
    wait_until(lambda: snapshot(cluster, home, namespace) - before <= left, f"the rest of the release to go, all but {left}")
    cluster.kubectl("get", CRD)
    cluster.kubectl("-n", namespace, "get", "rlhfrun/stays")


def test_a_further_release_leaves_the_crd_to_the_first_and_watches_its_own_namespace(
    cluster: Cluster, crd: None, installer: Helm, home: str, namespace: str
) -> None:
    values: Values = {"watch": {"namespaces": [namespace]}, "crds": {"install": False}}
    owner = cluster.kubectl("get", CRD, "-o", "jsonpath={.metadata.annotations}")
    installer("install", "second", str(CHART), "-n", home, "--wait", "--timeout=2m", values=values)
    installer("uninstall", "second", "-n", home, "--wait", "--timeout=2m")
    assert cluster.kubectl("get", CRD, "-o", "jsonpath={.metadata.annotations}") == owner


def test_a_crd_of_another_release_is_taken_over_when_it_is_said_and_refused_when_not(
    cluster: Cluster, crd: None, installer: Helm, home: str, namespace: str
) -> None:
    values: Values = {"watch": {"namespaces": [namespace]}}
    installer("install", "old", str(CHART), "-n", home, *TAKE_OVER, values=values)
    installer("uninstall", "old", "-n", home, "--wait")
    with pytest.raises(HelmError, match=r'"meta\.helm\.sh/release-name" must equal "new": current value is "old"'):
        installer("install", "new", str(CHART), "-n", home, values=values)
    installer("install", "new", str(CHART), "-n", home, *TAKE_OVER, values=values)
    assert cluster.kubectl("get", CRD, "-o", r"jsonpath={.metadata.annotations.meta\.helm\.sh/release-name}") == "new"
    installer("uninstall", "new", "-n", home, "--wait")


def test_a_namespace_that_is_not_there_stops_the_release_with_its_name(
    cluster: Cluster, crd: None, installer: Helm, home: str
) -> None:
    with pytest.raises(HelmError, match='namespaces "not-there" not found'):
        installer("install", "wrong", str(CHART), "-n", home, *adopting(cluster), values={"watch": {"namespaces": ["not-there"]}})
    installer("uninstall", "wrong", "-n", home, "--wait", "--ignore-not-found")


def adopting(cluster: Cluster) -> list[str]:
    """Where the CRD is there already, of another test or of somebody else, the release has to say that it takes it over."""
    try:
        cluster.kubectl("get", CRD)
    except KubectlError:
        return []
    return TAKE_OVER


def snapshot(cluster: Cluster, *namespaces: str) -> set[tuple[str, str]]:
    """(namespace or "", resource/name) of everything in these namespaces and of everything that is in none."""
    found = set()
    for root in [
        "/api/v1",
        *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in cluster.api.get("/apis")["groups"]),
    ]:
        for resource in cluster.api.get(root)["resources"]:
            if "list" not in resource["verbs"] or resource["name"] in _RESTLESS:
                continue
            places = {name: f"/namespaces/{name}" for name in namespaces} if resource["namespaced"] else {"": ""}
            for place, path in places.items():
                listed = cluster.api.get(f"{root}{path}/{resource['name']}")["items"]
                found |= {(place, f"{resource['name']}/{item['metadata']['name']}") for item in listed}
    return found


def size_of_release(cluster: Cluster, namespace: str) -> int:
    (secret,) = json.loads(cluster.kubectl("-n", namespace, "get", "secret", "-l", "owner=helm", "-o", "json"))["items"]
    return len(base64.b64decode(secret["data"]["release"]))
