"""What a test has of a real node: `node_cluster` (node_fixtures.py) is one of these, for the whole session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import node
from cluster.handle import Cluster
from cluster.layout import Layout
from cluster.machine import Machine
from cluster.node_programs import NODE
from cluster.node_s3 import NodeS3
from cluster.readiness import wait_for
from support import processes

API_SERVER = "kube-apiserver"


class NodeCluster(Cluster):
    """A control plane and one real node, which cannot fetch images: import what pods shall run, with imagePullPolicy Never."""

    node_name = NODE

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, layout.admin)
        self.s3 = NodeS3(layout)
        """S3 for pods and tests; `s3.access_log` holds every request."""

    @property
    def machine(self) -> Machine:
        """Its addresses: `machine.address` of the node, `machine.gateway` of this machine as pods see it."""
        return node.machine_of(self.layout)

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **no_proxy(self.layout)}

    # --- images ---

    def import_image(self, archive: Path) -> None:
        """A docker or OCI archive; support/images.py makes small ones. Pods can have it as soon as this returns."""
        node.import_image(self.machine, archive)

    def images(self) -> list[str]:
        """The names under which pods can have them."""
        return node.image_names(self.machine)

    # --- outages ---

    def stop(self, name: str) -> None:
        """Kill a component: connections to it break, and new ones are refused. Pods outlive containerd and the kubelet."""
        self.component(name).kill()

    def silence(self, name: str) -> None:
        """It keeps its connections and answers nothing, until `start`."""
        for pid in self._processes(name):
            os.kill(pid, signal.SIGSTOP)

    def start(self, name: str) -> None:
        """What was stopped or silenced answers again, on the same data, when this returns."""
        component = self.component(name)
        if not component.running:
            component.restart()

        def answers() -> bool:
            # Again and again, for nsenter stops itself where it sees that its child has stopped.
            component.signal(signal.SIGCONT)
            for pid in self._processes(name):
                os.kill(pid, signal.SIGCONT)
            return node.is_ready(self.layout, name)

        wait_for(component, answers)

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    @contextmanager
    def outage(self, name: str, *, silent: bool = False) -> Iterator[None]:
        """Of `kube-apiserver`, `s3`, or another component; it works again afterwards, whatever happened meanwhile."""
        (self.silence if silent else self.stop)(name)
        try:
            yield
        finally:
            self.start(name)

    def _processes(self, name: str) -> list[int]:
        """The program itself: altogether inside the node's machine it is a child of the nsenter that was started here."""
        identity = self.component(name).identity
        if identity is None:
            return []
        return processes.tree(identity.pid)[1:2] if name in node.INSIDE else [identity.pid]


def no_proxy(layout: Layout) -> dict[str, str]:
    """For programs that send requests through a proxy of the machine's: the node is on this side of it.

    Clients know that by themselves of loopback addresses only.
    """
    host = layout.addresses.host
    before = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    value = before if host in before.split(",") else f"{before},{host}".lstrip(",")
    return {"NO_PROXY": value, "no_proxy": value}
