"""The command line of each component of the control plane.

What Kubernetes has on by default stays as it is: Pod Security admission, quotas, priorities, the garbage collector. What differs is
said where it does.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster.addresses import Addresses
from cluster.certificates import Authority
from cluster.layout import Layout
from support.binaries import program

Command = list[str | Path]

SERVICE_RANGE = "10.96.0.0/16"
KWOK_USER = "kwok"
#: For the controller manager; see support/programs/.
QUICK_RETRIES = {"RLHF_TEST_POD_BACKOFF": "100ms"}
#: The requests of the simulation and of the node would drown those that tests look for.
_NOT_AUDITED = [
    KWOK_USER,
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "coredns",
]


def issue(layout: Layout) -> None:
    """All certificates, and a kubeconfig for each client, whatever the cluster's size."""
    addresses = layout.addresses
    authority = Authority(layout.pki)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    authority.server("api", [addresses.host, "10.96.0.1", *names])
    authority.peer("etcd", [addresses.host])
    authority.server("kubelet", [addresses.host])
    authority.client("api-to-kubelet", "kube-apiserver-kubelet-client", "system:masters")
    for name, user, group in (
        ("admin", "admin", "system:masters"),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kwok", KWOK_USER, "system:masters"),
        ("node", "system:node:node", "system:nodes"),
        ("proxy", "system:kube-proxy", None),
        # No role comes with Kubernetes for it.
        ("coredns", "coredns", "system:masters"),
    ):
        authority.client(name, user, group)
        authority.kubeconfig(name, addresses.server, kubeconfig(layout, name))
    (layout.pki / "audit.json").write_text(json.dumps(_audit_policy()))


def kubeconfig(layout: Layout, name: str) -> Path:
    return layout.admin if name == "admin" else layout.pki / f"{name}.conf"


def etcd(layout: Layout, at: Addresses) -> Command:
    """Whoever writes to it can have any pod, and with that, on a real node, the machine: so nobody may without a certificate."""
    pair = ("cert-file", layout.pki / "etcd.crt"), ("key-file", layout.pki / "etcd.key"), ("trusted-ca-file", layout.pki / "ca.crt")
    return [
        program("etcd"),
        *(f"--{of}{name}={file}" for of in ("", "peer-") for name, file in pair),
        *("--client-cert-auth", "--peer-client-cert-auth"),
        *("--name", "test", "--data-dir", layout.folder / "etcd"),
        *("--listen-client-urls", f"https://{at.host}:{at.etcd}", "--advertise-client-urls", f"https://{at.host}:{at.etcd}"),
        *("--listen-peer-urls", f"https://{at.host}:{at.peer}", "--initial-advertise-peer-urls", f"https://{at.host}:{at.peer}"),
        *("--initial-cluster", f"test=https://{at.host}:{at.peer}"),
        # Nothing here must survive a power failure.
        "--unsafe-no-fsync",
        *("--log-level", "warn"),
    ]


def api_server(layout: Layout, at: Addresses, *, of_real_node: bool = False) -> Command:
    """`of_real_node`: pods ask for the Service `kubernetes`, and reach its address; a kubelet may write of its own node alone."""
    pki = layout.pki
    return [
        program("kube-apiserver"),
        f"--etcd-servers=https://{at.host}:{at.etcd}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'etcd.crt'}",
        f"--etcd-keyfile={pki / 'etcd.key'}",
        f"--bind-address={at.host}",
        f"--secure-port={at.api}",
        f"--advertise-address={at.host}",
        # The Service `kubernetes` may not point to a loopback address; simulated pods do not ask for it.
        "--enable-admission-plugins=NodeRestriction" if of_real_node else "--endpoint-reconciler-type=none",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'api.crt'}",
        f"--tls-private-key-file={pki / 'api.key'}",
        f"--service-account-key-file={pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged",
        f"--kubelet-client-certificate={pki / 'api-to-kubelet.crt'}",
        f"--kubelet-client-key={pki / 'api-to-kubelet.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={pki / 'audit.json'}",
        f"--audit-log-path={layout.audit}",
    ]


def controller_manager(layout: Layout, at: Addresses) -> Command:
    own = kubeconfig(layout, "controller-manager")
    return [
        program("kube-controller-manager"),
        f"--kubeconfig={own}",
        # To let clients ask /healthz without a certificate, it asks the API server who they are.
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--bind-address={at.host}",
        f"--secure-port={at.controller_manager}",
        f"--service-account-private-key-file={layout.pki / 'service-accounts.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        # Hundreds of runs at once must wait for the operator, not for this client's default of 20 requests a second.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--concurrent-job-syncs=20",
    ]


def scheduler(layout: Layout, at: Addresses) -> Command:
    own = kubeconfig(layout, "scheduler")
    return [
        program("kube-scheduler"),
        f"--kubeconfig={own}",
        f"--authentication-kubeconfig={own}",
        f"--authorization-kubeconfig={own}",
        f"--bind-address={at.host}",
        f"--secure-port={at.scheduler}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _audit_policy() -> dict[str, object]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": _NOT_AUDITED},
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system", "system:nodes"]},
            {"level": "None", "nonResourceURLs": ["*"]},
            {"level": "Metadata"},
        ],
    }
