"""kwok: how it is started, and the nodes that it simulates. What happens on them stands in stages.py."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.control_plane import Command, kubeconfig
from cluster.layout import Layout
from cluster.stages import Json, node_stages, pod_stages
from support.binaries import program

#: Which nodes are simulated; pods can select them by it where a cluster has real ones, too.
NODE_LABEL = {"type": "kwok"}
_POD_RANGE = "10.244.0.0/16"


def command(layout: Layout, admin: Path | None = None) -> Command:
    """`admin`: kubeconfig of a cluster that somebody else made."""
    configuration = layout.folder / "kwok.yaml"
    # Several documents in one file; JSON is YAML.
    configuration.write_text("\n---\n".join(json.dumps(document) for document in [_OPTIONS, *node_stages(), *pod_stages()]))
    at = layout.addresses
    return [
        program("kwok"),
        f"--config={configuration}",
        f"--kubeconfig={admin or kubeconfig(layout, 'kwok')}",
        f"--manage-nodes-with-label-selector={','.join(f'{key}={value}' for key, value in NODE_LABEL.items())}",
        f"--cidr={_POD_RANGE}",
        f"--server-address={at.host}:{at.kwok}",
        # Where the API server asks for logs: kubelet.py answers, not kwok.
        f"--node-ip={at.host}",
        f"--node-port={at.kubelet}",
    ]


def node(name: str, *, gpus: int = 8, cpu: str = "64", memory: str = "1Ti", labels: dict[str, str] | None = None) -> Json:
    """A Node object; kwok reports it ready."""
    resources = {"cpu": cpu, "memory": memory, "ephemeral-storage": "1Ti", "pods": "1000", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **NODE_LABEL, **(labels or {})}},
        "status": {"allocatable": resources, "capacity": resources},
    }


_OPTIONS: Json = {
    "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
    "kind": "KwokConfiguration",
    # Given one of them, kwok has no defaults for the others.
    "options": {
        # Hundreds of pods at once must wait for the operator, not for four workers.
        "podPlayStageParallelism": 16,
        "nodePlayStageParallelism": 4,
        "nodeLeaseParallelism": 4,
        "nodeLeaseDurationSeconds": 40,
        "podsOnNodeSyncParallelism": 1,
        "enablePodsOnNodeSyncListPager": True,
    },
}
