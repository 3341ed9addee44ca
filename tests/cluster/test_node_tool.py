"""A real node comes and goes, and nothing of it stays on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import machine, start
from cluster.errors import ClusterError
from cluster.layout import Layout, all_layouts, layout, sweep
from cluster.node_handle import NodeCluster
from cluster.node_programs import PAUSE
from cluster.processes import Identity
from support import processes
from support.binaries import cache
from support.cluster_tool import tool
from support.waiting import wait_until

pytestmark = pytest.mark.node

#: What a node, wherever it is started carelessly, changes for everybody.
SETTINGS = ("net/ipv4/ip_forward", "vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
#: Where it writes, whatever it is told.
PLACES = (
    *("/run/containerd", "/run/netns", "/run/cni", "/run/kubernetes", "/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet"),
    *("/var/log/pods", "/var/log/containers", "/etc/cni", "/etc/containerd", "/opt/containerd"),
)
#: Of a node's mounts each names one of them. Others here may mount something, too.
MOUNTS = (" /run", " /var/", " /proc/", "containerd", "kubelet", "netns", str(cache() / "clusters"))


def listing() -> set[str]:
    """All that a node could leave of itself on this machine, but processes: those of others come and go."""
    found = {
        "mount": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if any(place in line for place in MOUNTS)],
        "link": [link["ifname"] for link in json.loads(_output("ip", "-json", "link"))],
        "route": _output("ip", "route").splitlines(),
        "packet filter": _output("nft", "list", "ruleset").splitlines(),
        "network namespace": _output("ip", "netns").splitlines(),
        "cgroup": [str(path) for path in Path("/sys/fs/cgroup").glob("*/*/")],
        "setting": [f"{name}={Path('/proc/sys', name).read_text()}" for name in SETTINGS],
        "folder": [folder for folder in PLACES if Path(folder).exists()],
        "cluster": [str(path) for path in (cache() / "clusters").iterdir()],
    }
    return {f"{kind} {thing}" for kind, things in found.items() for thing in things}


def left(before: set[str]) -> set[str]:
    """What is there now and was not before, but for what belongs to other clusters that somebody started meanwhile."""
    others = [found.folder.name for found in all_layouts()]
    others += [own.link for found in all_layouts() if (own := machine.load(found.folder))]
    return {thing for thing in listing() - before if not any(other in thing for other in others)}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run_pods(cluster: NodeCluster) -> None:
    """Some that hear no SIGTERM in time, with volumes in memory and on disk."""
    volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "disk", "emptyDir": {}}]
    mounts = [{"name": volume["name"], "mountPath": f"/{volume['name']}"} for volume in volumes]
    container = {"name": "main", "image": PAUSE, "imagePullPolicy": "Never", "volumeMounts": mounts}
    for name in ("one", "other"):
        spec = {"containers": [container], "volumes": volumes}
        cluster.api.post("/api/v1/namespaces/default/pods", {"metadata": {"name": name}, "spec": spec})
    for name in ("one", "other"):
        path = f"/api/v1/namespaces/default/pods/{name}"
        wait_until(lambda path=path: cluster.api.get(path)["status"].get("phase") == "Running", path, seconds=120)  # type: ignore[misc]


def running(found: Layout) -> list[Identity]:
    """Every process of it: components, what they have started, and what that has."""
    roots = [component.identity for component in found.components()]
    pids = {pid for root in roots if root for pid in processes.tree(root.pid)}
    return [identity for pid in sorted(pids) if (identity := Identity.of(pid))]


@pytest.fixture
def name() -> Iterator[str]:
    name = f"tool-{os.getpid()}-node"
    yield name
    start.down(layout(name))


def test_up_runs_pods_and_down_leaves_nothing(name: str) -> None:
    found = layout(name)
    before = listing()
    said = tool("up", "--size", "node", "--name", name)
    assert said.startswith(f"export KUBECONFIG={found.admin}\nexport PATH={found.bin}:")
    assert tool("up", "--size", "node", "--name", name) == said
    assert f"{name}: up at https://198.1" in tool("status", "--name", name)
    with pytest.raises(ClusterError, match="is up with size node"):
        start.up(found)
    run_pods(NodeCluster(found))
    of_it = running(found)
    # Components, two shims, and the two processes of each pod.
    assert len(of_it) > len(found.components()) + 6
    tool("down", "--name", name)
    assert [identity for identity in of_it if identity.alive] == []
    assert processes.under(found.folder) == []
    assert left(before) == set()


def test_what_a_killed_session_left_is_swept_by_the_next(name: str) -> None:
    before = listing()
    found = layout(name)
    session = subprocess.Popen(["sleep", "600"])
    try:
        start.up(found, Identity.of(session.pid), "node")
        run_pods(NodeCluster(found))
        of_it = running(found)
        # As where the memory ran out: the daemons are gone, and their containers live on.
        for component in ("containerd", "kubelet"):
            found.component(component).kill()
    finally:
        session.kill()
        session.wait()
    sweep()
    assert [identity for identity in of_it if identity.alive] == []
    assert left(before) == set()


def test_with_its_machine_dead_it_is_swept_all_the_same(name: str) -> None:
    before = listing()
    found = layout(name)
    start.up(found, None, "node")
    cluster = NodeCluster(found)
    run_pods(cluster)
    of_it = running(found)
    # A parent that is stopped does not take in its child's end, and without that the machine's first process cannot end.
    cluster.silence("kubelet")
    found.component(machine.NAME).signal(signal.SIGKILL)
    assert "broken" in tool("status", "--name", name, codes=(1,))
    tool("down", "--name", name)
    assert [identity for identity in of_it if identity.alive] == []
    assert left(before) == set()
