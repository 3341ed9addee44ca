"""What a real node runs: the command line and the configuration of each program. They are those of any node; what differs is said.

Their folders are the usual ones, /run, /var/lib and /var/log, for the machine has its own of these (machine.py).
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster import control_plane
from cluster.addresses import Addresses
from cluster.control_plane import Command
from cluster.layout import Layout
from cluster.machine import Machine
from support.binaries import program
from support.bounded import SYSTEM_PATH

NODE = "node"
#: Without a registry: only what was imported is there, so `imagePullPolicy: Never`.
PAUSE = "localhost/pause:1"
BRIDGE = "pods"
DNS = "10.96.0.10"
_PODS = "10.244.0.0/24"
#: Where Debian, Fedora, and everybody else have them.
_CNI = (Path("/usr/lib/cni"), Path("/usr/libexec/cni"), Path("/opt/cni/bin"))
#: On the node's address.
DNS_READY, PROXY_HEALTH, KUBELET_HEALTH = 8181, 10256, 10248


def containerd(own: Machine) -> tuple[Command, dict[str, str]]:
    """The command, and what its environment has besides."""
    folder = own.folder / "machine"
    networks = folder / "networks"
    networks.mkdir()
    # A bridge does not enforce NetworkPolicies: whatever they say, every pod here reaches every other. That the operator makes the
    # right ones is tested as objects; that a network obeys them is the network's business.
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipam": {"type": "host-local", "subnet": _PODS}}
    bridge["ipam"] |= {"routes": [{"dst": "0.0.0.0/0"}]}  # type: ignore[operator]
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    (networks / "pods.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}))
    configuration = folder / "containerd.toml"
    configuration.write_text(f"""version = 3
# They would make folders, or reach for devices, of this machine.
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/lib/containerd-opt"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # In a container, root may not make a process less likely to be killed when memory runs out.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = {json.dumps([str(path) for path in _CNI])}
  conf_dir = "{networks}"
""")
    # It looks for its shim, and the shim for runc, by their plain names.
    programs = folder / "bin"
    programs.mkdir()
    for name in ("containerd-shim-runc-v2", "runc"):
        (programs / name).symlink_to(program(name))
    return [*own.inside(), program("containerd"), f"--config={configuration}"], {"PATH": f"{programs}:{SYSTEM_PATH}"}


def ctr(own: Machine, *arguments: str) -> Command:
    """Of the images and containers that the kubelet sees."""
    return [*own.inside(), program("ctr"), "--namespace=k8s.io", *arguments]


def kubelet(layout: Layout, own: Machine, at: Addresses) -> Command:
    configuration = own.folder / "machine" / "kubelet.json"
    content = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": at.host,
        "healthzBindAddress": at.host,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDomain": "cluster.local",
        "clusterDNS": [DNS],
        # Names of the world outside are nobody's business here.
        "resolvConf": "",
        # Whatever version of cgroups is here (tried: 1, each controller mounted by itself), and without systemd. Under a root
        # of our own, pods have theirs as on any node, and a container over its memory is killed as OOMKilled. With cgroupsPerQOS
        # off, containerd would put containers elsewhere, and nobody would remove what is left of them.
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": own.cgroup,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # A machine that builds something beside it is short of everything.
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        # A pod over its limit of disk is gone in seconds; a minute is the default, and no stage of a test takes as long.
        "volumeStatsAggPeriod": "5s",
    }
    configuration.write_text(json.dumps(content, indent=1))
    return [
        *own.inside(),
        program("kubelet"),
        f"--config={configuration}",
        f"--kubeconfig={control_plane.kubeconfig(layout, 'node')}",
        f"--hostname-override={NODE}",
        f"--node-ip={at.host}",
    ]


def kube_proxy(layout: Layout, own: Machine, at: Addresses) -> tuple[Command, dict[str, str]]:
    command: Command = [
        *own.in_network(),
        program("kube-proxy"),
        f"--kubeconfig={control_plane.kubeconfig(layout, 'proxy')}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={_PODS}",
        f"--hostname-override={NODE}",
        f"--healthz-bind-address={at.host}:{PROXY_HEALTH}",
        "--metrics-bind-address=127.0.0.1:10249",
        # Settings of the whole kernel: as they are.
        *("--conntrack-max-per-core=0", "--conntrack-min=0"),
        *("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0"),
    ]
    return command, {"PATH": SYSTEM_PATH}


def coredns(layout: Layout, own: Machine, at: Addresses) -> Command:
    configuration = own.folder / "machine" / "Corefile"
    configuration.write_text(f""".:53 {{
  bind {at.host}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {control_plane.kubeconfig(layout, "coredns")}
    endpoint_pod_names
  }}
  ready {at.host}:{DNS_READY}
  errors
}}
""")
    return [*own.in_network(), program("coredns"), "-conf", configuration]


def dns_service(at: Addresses) -> list[dict[str, object]]:
    """CoreDNS is no pod: its Service has no selector, and an EndpointSlice made by hand."""
    ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    name = "kube-dns"
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "kube-system"},
            "spec": {"clusterIP": DNS, "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "kube-system", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [at.host]}],
            "ports": ports,
        },
    ]
