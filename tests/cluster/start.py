"""How a cluster comes up, and goes: components in order, each waited for; on any failure everything that was started is ended."""

from __future__ import annotations

import random
import ssl
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from cluster import control_plane, kwok
from cluster.addresses import Addresses, free
from cluster.api import Api, ApiError
from cluster.control_plane import Command
from cluster.errors import StartError
from cluster.layout import Layout
from cluster.processes import Component, Identity
from support.binaries import NAMES, SOURCES, BuildError, program

#: On a machine that builds something beside it, the API server alone takes half a minute.
_PATIENCE_SECONDS = 120.0
_NODES = 4

NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")


def up(layout: Layout, owner: Identity | None = None) -> None:
    """An empty cluster, ready to be used. One that is up already is left as it is; rests of one that crashed are ended first.

    `owner`: the process that it belongs to; when that is gone, whoever comes next removes the cluster.
    """
    try:
        for name in NEEDED:
            program(name)
    except BuildError as error:
        raise StartError(str(error)) from error
    with layout.locked():
        if is_up(layout):
            return
        layout.remove()
        try:
            _start(layout, owner)
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
    components = layout.components()
    if not layout.exists or len(components) < 6 or not all(component.running for component in components):
        return False
    return _ready(Api(layout.admin))


def _start(layout: Layout, owner: Identity | None) -> None:
    addresses = free(random.Random())
    layout.record(addresses, owner)
    control_plane.issue(layout)
    _link_programs(layout)
    layout.pods.mkdir()
    begin = time.monotonic()
    _run(
        layout, "etcd", control_plane.etcd(layout, addresses), lambda: _answers(f"http://{addresses.host}:{addresses.etcd}/health")
    )
    api = Api(layout.admin)
    _run(layout, "kube-apiserver", control_plane.api_server(layout, addresses), lambda: _ready(api))
    start_rest(layout, api, addresses)
    print(f"the test cluster {layout.folder.name} is up after {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def start_rest(layout: Layout, api: Api, addresses: Addresses) -> None:
    """What only talks to the API server: side by side, and then waited for."""
    manager = layout.component("kube-controller-manager")
    manager.start(control_plane.controller_manager(layout, addresses), control_plane.QUICK_RETRIES)
    scheduler = layout.component("kube-scheduler")
    scheduler.start(control_plane.scheduler(layout, addresses))
    simulate(layout, api)
    wait_for(scheduler, lambda: _answers(f"https://{addresses.host}:{addresses.scheduler}/healthz"))
    # Pods can be made when the controller of service accounts has made one in their namespace.
    wait_for(manager, lambda: api.find("/api/v1/namespaces/default/serviceaccounts/default") is not None)


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
    wait_for(kubelet, lambda: _answers(f"https://{at.host}:{at.kubelet}/healthz"))


def kubelet_command(layout: Layout, at: Addresses) -> Command:
    script = Path(__file__).with_name("kubelet.py")
    pair = (str(layout.pki / "kubelet.crt"), str(layout.pki / "kubelet.key"))
    return [sys.executable, script, at.host, str(at.kubelet), *pair, layout.pods]


def node_is_ready(api: Api, name: str) -> bool:
    node = api.find(f"/api/v1/nodes/{name}") or {}
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in node.get("status", {}).get("conditions", [])
    )


def _link_programs(layout: Layout) -> None:
    """Those that a person uses, where they are built."""
    layout.bin.mkdir()
    for source in SOURCES:
        for name in source.commands.keys() & {"kubectl", "helm"} & set(NAMES):
            if source.program(name).exists():
                (layout.bin / name).symlink_to(source.program(name))


def _run(layout: Layout, name: str, command: Command, ready: Callable[[], bool]) -> None:
    component = layout.component(name)
    component.start(command)
    wait_for(component, ready)


def wait_for(component: Component, ready: Callable[[], bool]) -> None:
    """StartError, with the end of its log, where it ends instead, or is not ready in two minutes."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        # First whether it lives: what answers might be somebody else.
        if not component.running:
            raise StartError(f"{component.name} ended as soon as it was started. {_words(component)}")
        if ready():
            return
        if time.monotonic() > deadline:
            raise StartError(f"{component.name} was not ready after {_PATIENCE_SECONDS:.0f} s. {_words(component)}")
        time.sleep(0.05)


def _words(component: Component) -> str:
    return f"The end of its log, {component.log}:\n{component.last_words()}"


def _ready(api: Api) -> bool:
    try:
        api.get("/readyz")
    except (OSError, ApiError):
        return False
    return True


def _answers(url: str) -> bool:
    """2xx, whoever signed its certificate: the components make their own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False
