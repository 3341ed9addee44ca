"""How a cluster comes up, and goes: components in order, each waited for; on any failure everything that was started is ended."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from cluster import control_plane, kwok, machine, node
from cluster.addresses import Addresses, free
from cluster.api import Api, ApiError
from cluster.control_plane import Command
from cluster.errors import ClusterError, StartError
from cluster.layout import Layout, Size
from cluster.processes import Identity
from cluster.programs import CONTROL_PLANE, PROGRAMS
from cluster.readiness import answers, api_is_ready, node_is_ready, run, wait_for
from support.binaries import NAMES, SOURCES, BuildError, program

_NODES = 4

#: What runs, by the size of a cluster.
COMPONENTS: dict[Size, tuple[str, ...]] = {
    "control": (*CONTROL_PLANE, "kubelet", "kwok"),
    "node": (machine.NAME, *CONTROL_PLANE, *node.COMPONENTS),
}


def up(layout: Layout, owner: Identity | None = None, size: Size = "control") -> None:
    """An empty cluster, ready to be used. One that is up already is left as it is; rests of one that crashed are ended first.

    `owner`: the process that it belongs to; when that is gone, whoever comes next removes the cluster.
    """
    if size == "node":
        node.check()
    try:
        for name in PROGRAMS[size]:
            program(name)
    except BuildError as error:
        raise StartError(str(error)) from error
    with layout.locked():
        if is_up(layout):
            if layout.size != size:
                name = layout.folder.name
                raise ClusterError(f"the cluster {name} is up with size {layout.size}; end it first, or take another --name")
            return
        layout.remove()
        try:
            _start(layout, owner, size)
        except BaseException:
            # The logs stay, for whoever asks why.
            layout.end_all()
            raise


def down(layout: Layout) -> bool:
    """End every process of it and remove its folder; False where there was none."""
    with layout.locked():
        there = layout.folder.exists()
        layout.remove()
        return there


def is_up(layout: Layout) -> bool:
    """All of its components run, and the API server answers."""
    if not layout.exists:
        return False
    components = layout.components()
    if not {component.name for component in components} >= set(COMPONENTS[layout.size]):
        return False
    return all(component.running for component in components) and api_is_ready(Api(layout.admin))


def _start(layout: Layout, owner: Identity | None, size: Size) -> None:
    begin = time.monotonic()
    match size:
        case "control":
            layout.record(free(random.Random()), owner)
            layout.pods.mkdir()
            api = _start_control_plane(layout)
            simulate(layout, api)
        case "node":
            own = machine.plan(layout.folder, random.Random())
            layout.record(Addresses.usual(own.address), owner, size)
            machine.start(own)
            api = _start_control_plane(layout, own)
            node.start(layout, own, api)
    _wait_for_controllers(layout, api)
    print(f"the test cluster {layout.folder.name} is up after {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def _start_control_plane(layout: Layout, own: machine.Machine | None = None) -> Api:
    """Where there is a real node, it listens in the node's network: there pods reach it, and nobody else but this machine does."""
    at = layout.addresses
    there = own.in_network() if own else []
    control_plane.issue(layout)
    _link_programs(layout)
    etcd = [*there, *control_plane.etcd(layout, at)]
    run(layout.component("etcd"), etcd, lambda: answers(f"https://{at.host}:{at.etcd}/health", layout.pki / "etcd"))
    api = Api(layout.admin)
    server = [*there, *control_plane.api_server(layout, at, of_real_node=own is not None)]
    run(layout.component("kube-apiserver"), server, lambda: api_is_ready(api))
    # The rest only talks to the API server: side by side, and waited for when all of it runs.
    manager = [*there, *control_plane.controller_manager(layout, at)]
    layout.component("kube-controller-manager").start(manager, control_plane.QUICK_RETRIES)
    layout.component("kube-scheduler").start([*there, *control_plane.scheduler(layout, at)])
    return api


def _wait_for_controllers(layout: Layout, api: Api) -> None:
    at = layout.addresses
    wait_for(layout.component("kube-scheduler"), lambda: answers(f"https://{at.host}:{at.scheduler}/healthz"))
    # Pods can be made when the controller of service accounts has made one in their namespace.
    wait_for(
        layout.component("kube-controller-manager"),
        lambda: api.find("/api/v1/namespaces/default/serviceaccounts/default") is not None,
    )


def simulate(layout: Layout, api: Api, admin: Path | None = None) -> None:
    """Simulated nodes, and what answers for their pods: in a cluster of ours, or in one that `admin` is a kubeconfig of."""
    at = layout.addresses
    kubelet = layout.component("kubelet")
    kubelet.start(kubelet_command(layout, at))
    simulation = layout.component("kwok")
    simulation.start(kwok.command(layout, admin))
    names = [f"gpu-{number}" for number in range(_NODES)]
    for name in names:
        try:
            api.post("/api/v1/nodes", kwok.node(name))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    for name in names:
        wait_for(simulation, lambda name=name: node_is_ready(api, name))  # type: ignore[misc]
    wait_for(kubelet, lambda: answers(f"https://{at.host}:{at.kubelet}/healthz"))


def kubelet_command(layout: Layout, at: Addresses) -> Command:
    script = Path(__file__).with_name("kubelet.py")
    pair = (str(layout.pki / "kubelet.crt"), str(layout.pki / "kubelet.key"))
    return [sys.executable, script, at.host, str(at.kubelet), *pair, layout.pods]


def _link_programs(layout: Layout) -> None:
    """Those that a person uses, where they are built."""
    layout.bin.mkdir()
    for source in SOURCES:
        for name in source.commands.keys() & {"kubectl", "helm"} & set(NAMES):
            if source.program(name).exists():
                (layout.bin / name).symlink_to(source.program(name))
