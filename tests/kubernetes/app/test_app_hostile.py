"""What one tenant writes hinders no other."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cluster.handle import Cluster
from support.operated_runs import ClusterRun, manifest
from support.operator_process import OperatorProcess
from support.waiting import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("crd")]
#: The API server itself refuses 10,000.
LEVELS = 9_000


def test_an_object_too_deep_for_a_parser_is_refused_and_all_others_go_on(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """It stops neither the operator that meets it in its first list, nor one whose watch tells of it."""
    told = hostile(cluster, namespace, tmp_path, "listed")
    with OperatorProcess(tmp_path, cluster.kubeconfig, [namespace]) as operator:
        operator.wait_leading()
        watched = hostile(cluster, namespace, tmp_path, "watched")
        good = ClusterRun(cluster, namespace, "good").create(iterations=1)
        good.until_phase("Succeeded", 120)
        for name in (told, watched):
            wait_until(partial(refused, cluster, namespace, name), f"{name} to be refused")


def hostile(cluster: Cluster, namespace: str, folder: Path, name: str) -> str:
    """Made by kubectl, for this process' own parser would meet its end."""
    text = json.dumps(manifest(name, namespace, podDefaults={"affinity": {}}))
    assert text.count('"affinity": {}') == 1
    file = folder / f"{name}.json"
    file.write_text(text.replace('"affinity": {}', '"affinity": ' + '{"a":' * LEVELS + "1" + "}" * LEVELS))
    cluster.kubectl("create", "--raw", f"/apis/rlhf.dev/v1alpha1/namespaces/{namespace}/rlhfruns", "-f", str(file))
    return name


def refused(cluster: Cluster, namespace: str, name: str) -> bool:
    message = cluster.kubectl("get", "rlhf", name, "-n", namespace, "-o", "jsonpath={.status.message}")
    return "nested deeper than 16 levels" in message
