"""The machine of a real node: on this one, but with a network, mounts and processes of its own (Linux namespaces).

A node leaves a lot behind: shims and containers that outlive their daemon, overlay and tmpfs mounts, network namespaces, a bridge
and its cables, packet filter tables with fixed names, settings of the kernel. In namespaces all of it belongs to the machine, and
the kernel takes it away with the machine's first process. Two nodes on one machine do not see each other, either, and nothing of
them listens where others could reach it.

What this machine itself gets is one end of a cable and some cgroups. `machine.json` names them before they are made.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError, StartError
from cluster.processes import Component, Identity
from cluster.readiness import run
from support.processes import tree

#: The component that holds it.
NAME = "machine"
NEEDS_ROOT = (
    "needs root: a real node makes namespaces, mounts and cgroups. Run this as root; or set KUBECONFIG to that of a cluster which "
    "root started with `python tests/cluster up --size node`; or leave the tests of the node out with RLHF_SKIP_NODE=1."
)
#: For tests between devices (RFC 2544), so no network that this machine may have to reach uses it.
_RANGE = ipaddress.ip_network("198.18.0.0/15")
_CGROUPS = Path("/sys/fs/cgroup")
_HIDDEN = ("/run", "/var/run", "/var/lib", "/var/log")
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Machine:
    folder: Path
    link: str
    """This machine's end of the cable."""
    gateway: str
    """The address of that end: where what runs in the node reaches this machine."""
    address: str
    """The node's own address, at the other end; from here and from its pods."""

    @property
    def cgroup(self) -> str:
        """The parent of the containers' cgroups, under the root of each hierarchy."""
        return f"/{self.link}"

    def in_network(self) -> list[str]:
        """What comes before a command that shall run here, but listen there. It stays one process."""
        return ["nsenter", f"--net=/proc/{_holder(self.folder)}/ns/net", "--"]

    def inside(self) -> list[str]:
        """What comes before a command that shall run there altogether: a child of the process that is started, and ends with it."""
        of = f"/proc/{_holder(self.folder)}/ns"
        spaces = [f"--net={of}/net", f"--mount={of}/mnt", f"--pid={of}/pid_for_children"]
        return ["nsenter", *spaces, "--", "setpriv", "--pdeathsig", "KILL", "--"]


def check_root() -> None:
    if os.geteuid() != 0:
        raise StartError(NEEDS_ROOT)


def plan(folder: Path, source: random.Random) -> Machine:
    """Names and addresses that nobody has yet, and the record of them."""
    if any(folder.resolve().is_relative_to(hidden) for hidden in _HIDDEN):
        raise StartError(
            f"the cluster's folder {folder} lies in a place that the node sees otherwise ({', '.join(_HIDDEN)}); set RLHF_CACHE to "
            "another one"
        )
    routes = [ipaddress.ip_network(str(route["dst"])) for route in _ip_json("route", "show", "table", "all") if _is_network(route)]
    links = {link["ifname"] for link in _ip_json("link", "show")}
    for _ in range(1000):
        network = ipaddress.ip_network((int(_RANGE.network_address) + 4 * source.randrange(_RANGE.num_addresses // 4), 30))
        link = f"rlhf-{source.randrange(16**6):06x}"
        if link not in links and not any(network.overlaps(route) for route in routes):
            break
    else:
        raise StartError(
            f"this machine has routes for all of {_RANGE} (ip route), where the test cluster takes the node's address from; remove "
            "one of them, or run the tests on another machine"
        )
    gateway, address = (str(host) for host in network.hosts())
    machine = Machine(folder, link, gateway, address)
    folder.mkdir(parents=True, exist_ok=True)
    _record(folder).write_text(json.dumps({**asdict(machine), "folder": str(folder)}))
    return machine


def start(machine: Machine) -> None:
    """Its first process, and the cable."""
    own = machine.folder / NAME
    own.mkdir()
    # With the one that is started here, the first process in there is killed, and with that every other.
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    command: list[str | Path] = ["unshare", *spaces, sys.executable, Path(__file__).with_name("machine_init.py"), own]
    run(Component(machine.folder, NAME), command, (own / "ready").exists)
    first = Identity.of(tree(_holder(machine.folder))[1])
    _first_record(machine.folder).write_text(json.dumps(asdict(first) if first else None))
    _ip("link", "add", machine.link, "type", "veth", "peer", "name", "eth0", "netns", str(_holder(machine.folder)))
    _ip("addr", "add", f"{machine.gateway}/30", "dev", machine.link)
    _ip("link", "set", machine.link, "up")
    there = machine.in_network()
    _ip("addr", "add", f"{machine.address}/30", "dev", "eth0", inside=there)
    _ip("link", "set", "eth0", "up", inside=there)


def load(folder: Path) -> Machine | None:
    """None for a cluster without a real node."""
    try:
        content = json.loads(_record(folder).read_text())
    except (OSError, ValueError):
        return None
    return Machine(**{**content, "folder": folder})


def end(folder: Path) -> None:
    """Everything that still runs in it, and what this machine has of it. Nothing happens where there is none.

    The components are killed before: as parents from outside they would keep what they started from its end.
    """
    machine = load(folder)
    if machine is None:
        return
    # The kernel ends it only when every other process of the machine is gone.
    first = _first(folder)
    if first is not None and first.alive:
        with suppress(ProcessLookupError):
            os.kill(first.pid, signal.SIGKILL)
        _wait(lambda: not first.alive, f"the end of process {first.pid}, the first of the machine in {folder}")
    subprocess.run(["ip", "link", "delete", machine.link], stderr=subprocess.DEVNULL, check=False)
    _wait(lambda: not Path(f"/sys/class/net/{machine.link}").exists(), f"the end of the network device {machine.link}")
    for root in _cgroup_roots():
        _wait(lambda root=root: _removed(root / machine.link), f"the end of the cgroup {root / machine.link}")  # type: ignore[misc]
    _record(folder).unlink()


def make_cgroups(machine: Machine) -> None:
    """In every hierarchy of version 1, or in the one of version 2; a kubelet does not make the parent itself."""
    for root in _cgroup_roots():
        try:
            (root / machine.link).mkdir(exist_ok=True)
        except OSError as error:
            raise StartError(
                f"no cgroup can be made in {root} ({error.strerror}), where the node's containers have theirs; run the tests on a "
                "machine, or in a container that may write there (docker run --privileged --cgroupns=host)"
            ) from error
        # Beside hierarchies of version 1 there may be one of version 2 that has nothing to hand on.
        if root == _CGROUPS:
            for group in (root, root / machine.link):
                _hand_on_controllers(group)


def _hand_on_controllers(group: Path) -> None:
    """To the groups below it, which version 2 wants to be told."""
    for name in (group / "cgroup.controllers").read_text().split():
        # Some are of the root alone.
        with suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{name}")
    lacking = {"cpu", "memory", "pids"} - set((group / "cgroup.subtree_control").read_text().split())
    if lacking:
        raise StartError(
            f"the cgroup {group} does not give {', '.join(sorted(lacking))}, which a kubelet needs: in a container with a "
            "cgroup namespace of its own, processes stand in the way. Run the tests on a machine, or with --cgroupns=host"
        )


def _holder(folder: Path) -> int:
    identity = Component(folder, NAME).identity
    if identity is None:
        raise ClusterError(f"the machine of the node in {folder} has ended; its log is {folder / 'log' / NAME}.log. Run `up` again")
    return identity.pid


def _first(folder: Path) -> Identity | None:
    try:
        content = json.loads(_first_record(folder).read_text())
    except (OSError, ValueError):
        return None
    return Identity(**content) if content else None


def _record(folder: Path) -> Path:
    return folder / f"{NAME}.json"


def _first_record(folder: Path) -> Path:
    return folder / NAME / "first.json"


def _cgroup_roots() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return sorted(path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())


def _removed(group: Path) -> bool:
    """From the leaves to the root; False while a process of it is still ending."""
    try:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()
    except OSError:
        return not group.exists()
    return True


def _is_network(route: dict[str, object]) -> bool:
    """Of version 4; the rest is not looked at."""
    destination = str(route.get("dst", "default"))
    return destination != "default" and ":" not in destination


def _ip_json(*arguments: str) -> list[dict[str, object]]:
    return list(json.loads(_ip("-json", *arguments) or "[]"))


def _ip(*arguments: str, inside: list[str] | None = None) -> str:
    done = subprocess.run([*(inside or []), "ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(f"`ip {' '.join(arguments)}` answered {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"waited {_PATIENCE_SECONDS:.0f} s in vain for {what}; end it by hand, and run `down` again")
        time.sleep(0.02)
