"""The image and the chart on a real node, as a platform team installs them; and a run there, watched from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.handle import RESTRICTED
from cluster.node_handle import NodeCluster
from image import builder
from rlhf_api.storage import Storage, StorageCredentials
from rlhf_store import Store, open_store
from support import node_run
from support.helm import CHART, Helm
from support.operated_runs import ClusterRun
from support.s3 import ACCESS_KEY, SECRET_KEY

Json = dict[str, Any]
SECRET = "store-keys"
_RELEASE = "rlhf"


@dataclass(frozen=True)
class Installation:
    """The operator works on the runs of `runs`, and its pod is in `home`; both namespaces enforce Pod Security's `restricted`."""

    cluster: NodeCluster
    helm: Helm
    home: str
    runs: str

    @property
    def deployment(self) -> str:
        return f"{_RELEASE}-rlhf-operator"

    def operator_pods(self) -> list[Json]:
        path = f"/api/v1/namespaces/{self.home}/pods"
        items: list[Json] = self.cluster.api.get(path, labelSelector=f"app.kubernetes.io/instance={_RELEASE}")["items"]
        return items

    def kill_operator(self) -> None:
        """Its pod, without any grace."""
        for pod in self.operator_pods():
            self.cluster.api.delete(f"/api/v1/namespaces/{self.home}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)

    def start_run(self, folder: Path, storage: Storage, **changes: Any) -> RunOnNode:
        credentials = StorageCredentials.model_validate({"secretRef": {"name": SECRET}})
        there = storage.model_copy(update={"credentials": credentials})
        manifest = node_run.manifest(folder / "world", seen_here=storage, seen_there=there, **changes)
        self.cluster.apply(manifest, namespace=self.runs)
        return RunOnNode(self, ClusterRun(self.cluster, self.runs, node_run.NAME), manifest, storage)


@dataclass(frozen=True)
class RunOnNode:
    installation: Installation
    run: ClusterRun
    manifest: Json
    storage: Storage

    @property
    def store(self) -> Store:
        return open_store(self.storage)

    def manifests_put(self) -> list[str]:
        """The key of every artifact that was sealed, once for each time."""
        return self.installation.cluster.s3.manifests_put(self.storage)


@contextmanager
def installed(cluster: NodeCluster, folder: Path) -> Iterator[Installation]:
    """The image of this checkout, imported; the chart of this checkout, installed and ready."""
    tag = builder.build()
    if tag not in cluster.images():
        _import(cluster, tag, folder / "image")
    repository, _, version = tag.rpartition(":")
    with cluster.namespace(RESTRICTED) as home, cluster.namespace(RESTRICTED) as runs:
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": keys}
        cluster.apply(secret, namespace=runs)
        helm = Helm(folder, cluster.kubeconfig)
        values = {
            "image": {"repository": repository, "tag": version, "pullPolicy": "Never"},
            "runs": {"imagePullPolicy": "Never"},
            "watch": {"namespaces": [runs]},
        }
        # An earlier release's CRD stays; this one's takes its place.
        take_over = ["--take-ownership", "--force-conflicts"]
        helm("install", _RELEASE, str(CHART), "-n", home, "--wait", "--timeout=5m", *take_over, values=values)
        try:
            yield Installation(cluster, helm, home, runs)
        finally:
            helm("uninstall", _RELEASE, "-n", home, "--wait", "--timeout=2m")


def _import(cluster: NodeCluster, tag: str, pipe: Path) -> None:
    """Through a pipe: an archive would be one more copy of 7 GB."""
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        saved = pool.submit(builder.save, tag, pipe)
        cluster.import_image(pipe)
        saved.result()
    pipe.unlink()
