"""How a real node joins the control plane: containerd, kubelet, kube-proxy, CoreDNS, and an S3 server beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

from cluster import machine, node_programs
from cluster.api import Api, Json
from cluster.control_plane import Command
from cluster.errors import ClusterError, StartError
from cluster.layout import Layout
from cluster.machine import Machine
from cluster.node_s3 import NodeS3
from cluster.processes import Component
from cluster.readiness import answers, api_is_ready, node_is_ready, wait_for
from support import images
from support.binaries import program
from support.documents import ROOT
from support.s3 import BUCKET

#: In the order of their start.
COMPONENTS = ("containerd", "kubelet", "kube-proxy", "coredns", "s3")
#: Those that are there altogether; of the machine, the others only have the network.
INSIDE = ("containerd", "kubelet")
_IMPORT_SECONDS = 600


def check() -> None:
    """StartError, with all that is missing, where this machine cannot have a real node."""
    machine.check_root()
    done = subprocess.run(
        [sys.executable, "-I", ROOT / "tools" / "doctor.py", "--node"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise StartError(f"This machine lacks what a real node needs.\n{done.stderr.strip()}")


def start(layout: Layout, own: Machine, api: Api) -> None:
    """Ready means: the node says so, a pod runs on it, and names are answered."""
    at = layout.addresses
    machine.make_cgroups(own)
    containerd = layout.component("containerd")
    containerd.start(*node_programs.containerd(own))
    # CoreDNS and the S3 server need nothing of the node; they get ready meanwhile.
    layout.component("coredns").start(node_programs.coredns(layout, own, at))
    s3 = NodeS3(layout)
    s3.create(own)
    wait_for(containerd, lambda: is_ready(layout, "containerd"))
    pause = own.folder / "machine" / "pause.tar"
    images.write(pause, node_programs.PAUSE, program("pause"))
    import_image(own, pause)
    layout.component("kubelet").start(node_programs.kubelet(layout, own, at))
    layout.component("kube-proxy").start(*node_programs.kube_proxy(layout, own, at))
    for manifest in node_programs.dns_service(at):
        api.post(_path_of(manifest), manifest)
    for name in ("coredns", "kube-proxy", "s3", "kubelet"):
        wait_for(layout.component(name), lambda name=name: is_ready(layout, name))  # type: ignore[misc]
    s3.create_bucket(BUCKET)
    wait_for(layout.component("kubelet"), lambda: node_is_ready(api, node_programs.NODE))
    _try_a_pod(layout, api)


def machine_of(layout: Layout) -> Machine:
    found = machine.load(layout.folder)
    if found is None:
        raise ClusterError(f"the cluster {layout.folder.name} has no real node; run: python tests/cluster up --size node")
    return found


def is_ready(layout: Layout, name: str) -> bool:
    """The component of this name answers."""
    host = layout.addresses.host
    match name:
        case "containerd":
            return _succeeds(node_programs.ctr(machine_of(layout), "version"))
        case "kubelet":
            return answers(f"http://{host}:{node_programs.KUBELET_HEALTH}/healthz")
        case "kube-proxy":
            return answers(f"http://{host}:{node_programs.PROXY_HEALTH}/healthz")
        case "coredns":
            return answers(f"http://{host}:{node_programs.DNS_READY}/ready")
        case "s3":
            return NodeS3(layout).answers()
        case _:
            return api_is_ready(Api(layout.admin))


def import_image(own: Machine, archive: Path) -> None:
    """A docker or an OCI archive, into what pods can have. ClusterError with containerd's words where it does not take it."""
    with archive.open("rb") as content:
        # By standard input: the machine has a /run, /var/lib and /var/log of its own, and the archive may lie in ours.
        _ctr(own, "images", "import", "-", stdin=content, what=f"import {archive}")
    # The part of it that the kubelet asks hears of it a moment later; a pod that comes in between waits long before it tries again.
    wait_for(Component(own.folder, "containerd"), lambda: image_names(own) == _names(own))


def image_names(own: Machine) -> list[str]:
    return _names(own, 'labels."io.cri-containerd.image"==managed')


def _names(own: Machine, *filters: str) -> list[str]:
    """But not the ids under which they are known, too."""
    names = _ctr(own, "images", "list", "--quiet", *filters, what="list the images").split()
    return sorted(name for name in names if "@" not in name and not name.startswith("sha256:"))


def _ctr(own: Machine, *arguments: str, what: str, stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
    try:
        done = subprocess.run(
            node_programs.ctr(own, *arguments),
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        log = Component(own.folder, "containerd").log
        raise ClusterError(f"containerd could not {what} in {_IMPORT_SECONDS} s; its log is {log}") from error
    if done.returncode != 0:
        raise ClusterError(f"containerd could not {what}: {done.stderr.strip()}")
    return done.stdout


def _succeeds(command: Command) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _try_a_pod(layout: Layout, api: Api) -> None:
    """Only a pod that ran shows that runtime, network and cgroups are what they must be."""
    pods = "/api/v1/namespaces/kube-system/pods"
    container = {"name": "pause", "image": node_programs.PAUSE, "imagePullPolicy": "Never"}
    spec = {"containers": [container], "automountServiceAccountToken": False, "enableServiceLinks": False}
    wait_for(
        layout.component("kube-controller-manager"),
        lambda: api.find("/api/v1/namespaces/kube-system/serviceaccounts/default") is not None,
    )
    api.post(pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "first"}, "spec": spec})
    try:
        wait_for(layout.component("kubelet"), lambda: api.get(f"{pods}/first")["status"].get("phase") == "Running")
    except StartError as error:
        raise StartError(f"{error}\nThe first pod does not run: {_why(api, pods)}") from error
    api.delete(f"{pods}/first", gracePeriodSeconds=0)


def _why(api: Api, pods: str) -> str:
    events = api.get(pods.replace("/pods", "/events"), fieldSelector="involvedObject.name=first")["items"]
    return "; ".join(str(event.get("message")) for event in events) or str(api.get(f"{pods}/first")["status"])


def _path_of(manifest: Json) -> str:
    group = {"Service": "/api/v1", "EndpointSlice": "/apis/discovery.k8s.io/v1"}[manifest["kind"]]
    return f"{group}/namespaces/{manifest['metadata']['namespace']}/{manifest['kind'].lower()}s"
