"""The fixtures `cluster`, `namespace` and `crd`; tests/conftest.py takes them in.

With KUBECONFIG set the tests use that cluster, with nodes that kwok simulates in it; else they start their own, which belongs to
this pytest process: if it dies, the next one removes what it left.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cluster import start
from cluster.addresses import free
from cluster.api import Api, ApiError
from cluster.certificates import Authority
from cluster.control_plane import Command
from cluster.handle import Cluster
from cluster.layout import Layout, layout, sweep
from cluster.processes import Identity
from support.binaries import program
from support.documents import ROOT
from support.waiting import wait_until

CRD = ROOT / "crds" / "rlhf.dev_rlhfruns.yaml"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real API server with simulated nodes, for the whole session. A test takes a namespace of its own."""
    with running(layout(f"pytest-{os.getpid()}")) as found:
        yield found


@contextmanager
def running(own: Layout) -> Iterator[Cluster]:
    """The cluster that KUBECONFIG names, or one of this process' own."""
    sweep()
    given = os.environ.get("KUBECONFIG")
    tools = Layout(Path(given).resolve().parent) if given else own
    if given and tools.exists and tools.size == "control":
        # `python tests/cluster up` made it, and simulates its nodes.
        yield Cluster(tools, Path(given).resolve())
    elif given and not tools.exists:
        yield from simulated(own, given)
    else:
        start.up(own, Identity.of(os.getpid()))
        try:
            yield Cluster(own, own.admin)
        finally:
            start.down(own)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own; restricted Pod Security is enforced in it."""
    with cluster.namespace() as name:
        yield name


@pytest.fixture(scope="session")
def crd(cluster: Cluster) -> None:
    """The CustomResourceDefinition as it lies in crds/, known to the API server."""
    establish(cluster)


def establish(cluster: Cluster) -> None:
    """Create the CustomResourceDefinition, or bring it up to date."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/rlhfruns.rlhf.dev"

    def established() -> bool:
        # Not `kubectl wait`: it gives up on an object so new that it has no conditions.
        conditions = cluster.api.get(path).get("status", {}).get("conditions") or ()
        return any(found["type"] == "Established" and found["status"] == "True" for found in conditions)

    wait_until(established, "the CustomResourceDefinition to be established", seconds=60)


def simulated(own: Layout, kubeconfig: str) -> Iterator[Cluster]:
    """Somebody else's cluster, with our nodes for as long as the session lasts. `kubeconfig`: what KUBECONFIG holds."""
    own.remove()
    own.record(free(random.Random()), Identity.of(os.getpid()))
    Authority(own.pki).server("kubelet", [own.addresses.host])
    own.pods.mkdir()
    # One file, whole in itself, of what may be several with several contexts.
    current = own.folder / "theirs.conf"
    current.touch(mode=0o600)
    view: Command = [program("kubectl"), "config", "view", "--raw", "--minify", "--flatten", "-o", "json"]
    current.write_bytes(subprocess.run(view, env={**os.environ, "KUBECONFIG": kubeconfig}, capture_output=True, check=True).stdout)
    api = Api(current)
    before = _nodes(api)
    try:
        start.simulate(own, api, current)
        yield Cluster(own, current)
    finally:
        for name in _nodes(api) - before:
            with suppress(OSError, ApiError):
                api.delete(f"/api/v1/nodes/{name}")
        start.down(own)


def _nodes(api: Api) -> set[str]:
    return {node["metadata"]["name"] for node in api.get("/api/v1/nodes")["items"]}
