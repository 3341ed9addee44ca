"""Which programs a cluster is made of. Apart from how it starts: `make programs` needs the names alone, and at once."""

from __future__ import annotations

#: Set to 1, the tests of a real node are left out.
WITHOUT_NODE = "RLHF_SKIP_NODE"

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
#: What is built before anything is started, by the size of a cluster (layout.py).
PROGRAMS = {
    "control": (*CONTROL_PLANE, "kubectl", "kwok"),
    "node": (
        *CONTROL_PLANE,
        "kubectl",
        *("containerd", "containerd-shim-runc-v2", "ctr", "runc", "kubelet", "kube-proxy", "coredns", "versitygw", "pause"),
    ),
}
