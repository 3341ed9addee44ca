"""`python tests/cluster up|down|status`, as a person uses it, beside the cluster of the tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from cluster.fixtures import simulated
from cluster.handle import Cluster
from cluster.layout import Layout, layout
from support import processes
from support.binaries import cache
from support.cluster_tool import tool

pytestmark = pytest.mark.cluster


@pytest.fixture
def name() -> Iterator[str]:
    name = f"tool-{os.getpid()}"
    yield name
    tool("down", "--name", name)


def listing(found: Layout) -> tuple[list[int], list[str]]:
    """Processes that name its folder, and what lies beside the programs in the cache."""
    return processes.under(found.folder), sorted(path.name for path in (cache() / "clusters").iterdir())


def test_up_gives_a_second_cluster_and_down_leaves_nothing_of_it(cluster: Cluster, name: str) -> None:
    second = layout(name)
    before = listing(second)
    said = tool("up", "--name", name)
    assert said == f'export KUBECONFIG={second.admin}\nexport PATH={second.bin}:"$PATH"\n'
    shown = subprocess.run(
        ["bash", "-c", f"{said} kubectl get nodes -o name"],
        # kubectl keeps what it has learnt in HOME, and without one in the current folder.
        env={"PATH": os.environ["PATH"], "HOME": str(second.folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == [f"node/gpu-{number}" for number in range(4)]
    assert tool("up", "--name", name) == said
    assert f"{name}: up at https://127." in tool("status")
    assert f"{name}: up at https://127." in tool("status", "--name", name)
    assert f"{name}:" not in tool("status", "--name", "no-such", codes=(1,))

    # They have nothing to do with each other.
    one, other = cluster.api, Cluster(second, second.admin).api
    with cluster.namespace() as namespace:
        assert other.find(f"/api/v1/namespaces/{namespace}") is None
        assert one.server != other.server

    tool("down", "--name", name)
    assert listing(second) == before
    assert f"{name}:" not in tool("status", codes=(0, 1))
    cluster.wait_ready()


def test_up_after_a_crash_ends_the_rests_and_starts_afresh(name: str) -> None:
    crashed = layout(name)
    tool("up", "--name", name)
    Cluster(crashed, crashed.admin).kubectl("create", "namespace", "of-before")
    survivors = set(processes.under(crashed.folder))
    for component in ("kube-apiserver", "kube-controller-manager"):
        crashed.component(component).signal(signal.SIGKILL)
    assert f"{name}: broken" in tool("status", codes=(0, 1))
    tool("up", "--name", name)
    assert survivors.isdisjoint(processes.under(crashed.folder))
    fresh = Cluster(crashed, crashed.admin)
    assert fresh.api.find("/api/v1/namespaces/of-before") is None

    # With the API server restarted under them, the others go on.
    fresh.restart("kube-apiserver")
    with fresh.namespace():
        pass

    # As where KUBECONFIG names a cluster of somebody else, without nodes of ours in it.
    fresh.component("kwok").stop()
    fresh.kubectl("delete", "nodes", "--all")
    own = layout(f"{name}-nodes")
    for theirs in simulated(own, f"/nowhere/at-all:{fresh.kubeconfig}"):
        assert not theirs.ours
        assert len(theirs.api.get("/api/v1/nodes")["items"]) == 4
    assert fresh.api.get("/api/v1/nodes")["items"] == []
    assert listing(own)[0] == []
