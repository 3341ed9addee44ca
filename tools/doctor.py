"""What is needed of the machine itself. Everything that is missing is named at once, with the command that installs it.

    python3 tools/doctor.py                    what `make install` needs; exit 1 where something of it is missing
    python3 tools/doctor.py --node             what only the tests of a real node need (tests/cluster)
    python3 tools/doctor.py --tests            what `make test` needs: both, and root; with RLHF_SKIP_NODE=1 the first alone
    python3 tools/doctor.py --command debian   the command that installs the packages that --tests misses, if any

Standard library only, and a syntax that Python 3.9 reads, so that it can complain about an old Python.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
OLDEST_PYTHON = (3, 11)
#: torch, vLLM and DeepSpeed have wheels up to here.
NEWEST_PYTHON = (3, 14)
#: A machine sold with 8 GB shows less: the kernel keeps some.
MEMORY = int(7.2 * GIB)
SHARED_MEMORY = GIB
#: .venv takes 7 GB; the rest is for downloads, caches, and what runs and tests write.
DISK = 12 * GIB
#: With .venv in place: for caches, runs and tests.
DISK_INSTALLED = 4 * GIB
#: Of Debian, of Fedora, and of everybody else.
CNI_FOLDERS = ("/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin")
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")
#: Set to 1, the tests of a real node are left out (tests/support/leaving_out.py).
WITHOUT_NODE = "RLHF_SKIP_NODE"
#: A new machine's lists of packages are empty or old. No questions, and nothing that is not asked for.
INSTALL = {
    "debian": "{sudo}apt-get update && {sudo}apt-get install --yes --no-install-recommends {packages}",
    "fedora": "{sudo}dnf install --assumeyes {packages}",
}
SYSTEMS = {"debian": "Debian, Ubuntu", "fedora": "Fedora"}
#: What → why, and the packages of Debian and Fedora that bring it.
NODE_PACKAGES = {
    "libseccomp's headers": (
        "runc is built with it, and filters system calls",
        "libseccomp-dev",
        "libseccomp-devel",
    ),
    "a C compiler": ("runc, containerd and the node's other programs are built with it", "gcc", "gcc"),
    "pkg-config": ("the build of runc finds libseccomp by it", "pkg-config", "pkgconf-pkg-config"),
    "the CNI plugins bridge, host-local, loopback and portmap": (
        "they connect pods",
        "containernetworking-plugins",
        "containernetworking-plugins",
    ),
    "nft": ("kube-proxy makes services of its rules", "nftables", "nftables"),
    "ip": ("the node has a network of its own", "iproute2", "iproute"),
    "unshare, nsenter and setpriv": ("the node has mounts and processes of its own", "util-linux", "util-linux"),
    "mount": ("the node has mounts of its own", "mount", "util-linux"),
    "buildah": ("it builds the image that the node runs", "buildah", "buildah"),
    "debootstrap": ("it makes what the image is built on", "debootstrap", "debootstrap"),
}


@dataclass(frozen=True)
class Machine:
    """What was found. Sizes in bytes; None where it cannot be read."""

    system: str
    architecture: str
    python: tuple[int, int]
    has_venv: bool
    has_numa: bool
    memory: int | None
    shared_memory: int | None
    disk: int
    folder: str
    installed: bool
    root: bool
    node_lacks: frozenset[str] = frozenset()
    """Of NODE_PACKAGES."""


@dataclass(frozen=True)
class Missing:
    """`debian` and `fedora` are the packages that bring it; without one, `advice` says what to do."""

    what: str
    why: str
    debian: tuple[str, ...] = ()
    fedora: tuple[str, ...] = ()
    advice: str = ""

    def lines(self) -> Iterator[str]:
        yield f"missing: {self.what}"
        yield f"    why: {self.why}"
        if self.advice:
            yield f"    do: {self.advice}"

    def packages(self, system: str) -> tuple[str, ...]:
        return {"debian": self.debian, "fedora": self.fedora}[system]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check what `make install` needs of this machine.")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--node", action="store_true", help="check what a real node of the test cluster needs instead")
    others.add_argument("--tests", action="store_true", help=f"check what `make test` needs; {WITHOUT_NODE}=1: but for the node")
    others.add_argument("--command", choices=sorted(INSTALL), help="print what installs the packages that --tests misses; exit 0")
    options = parser.parse_args(arguments)
    machine = look(Path(__file__).resolve().parent.parent)
    with_node = os.environ.get(WITHOUT_NODE) != "1"
    if options.command:
        for line in command(machine, check_tests(machine, with_node=with_node), options.command):
            print(line)
        return 0
    if options.tests:
        lacking = check_tests(machine, with_node=with_node)
    else:
        lacking = check_node(machine) if options.node else check(machine)
    for line in report(machine, lacking):
        print(line, file=sys.stderr)
    return 1 if lacking else 0


def check(machine: Machine) -> Sequence[Missing]:
    """Everything that is missing, at once."""
    return [*_kind(machine), *_python(machine), *_libraries(machine), *_room(machine)]


def check_node(machine: Machine) -> Sequence[Missing]:
    """What a real node of the test cluster lacks beside it. Nobody needs it to install, or for the other tests."""
    return [
        Missing(what, f"a real node of the test cluster: {why}", (debian,), (fedora,))
        for what, (why, debian, fedora) in NODE_PACKAGES.items()
        if what in machine.node_lacks
    ]


def check_tests(machine: Machine, *, with_node: bool) -> Sequence[Missing]:
    """What `make test` lacks."""
    return [*check(machine), *(_root(machine) if with_node else ()), *(check_node(machine) if with_node else ())]


def report(machine: Machine, lacking: Sequence[Missing]) -> Iterator[str]:
    """Each thing with its reason, and in the end one command for all that packages bring."""
    for thing in lacking:
        yield from thing.lines()
    for system, name in SYSTEMS.items():
        for line in command(machine, lacking, system):
            yield f"{name}: {line}"
    if set(lacking) & {*_root(machine), *check_node(machine)}:
        yield f"Without the tests of a real node, less is needed, and no root: {WITHOUT_NODE}=1 make test"


def command(machine: Machine, lacking: Sequence[Missing], system: str) -> Iterator[str]:
    """The one line that installs the packages of all; none where no package is missing. `system`: of SYSTEMS."""
    packages = sorted({package for thing in lacking for package in thing.packages(system)})
    if packages:
        # Root needs no sudo, and a new machine has none.
        yield INSTALL[system].format(sudo="" if machine.root else "sudo ", packages=" ".join(packages))


def look(root: Path) -> Machine:
    """This machine, for a checkout at `root`."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        python=(sys.version_info[0], sys.version_info[1]),
        has_venv=all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
        has_numa=_can_load("libnuma.so.1"),
        memory=_memory(),
        shared_memory=shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,  # noqa: S108
        disk=shutil.disk_usage(root).free,
        folder=str(root),
        installed=(root / ".venv" / ".installed").exists(),
        root=os.geteuid() == 0,
        node_lacks=frozenset(_node_lacks()),
    )


def _kind(machine: Machine) -> Iterator[Missing]:
    if (machine.system, machine.architecture) != ("Linux", "x86_64"):
        yield Missing(
            "Linux on x86-64",
            f"this is {machine.system} on {machine.architecture}, and vLLM's and DeepSpeed's CPU builds are for Linux on x86-64",
            advice="use such a machine, a virtual machine or a container",
        )


def _python(machine: Machine) -> Iterator[Missing]:
    version = f"{machine.python[0]}.{machine.python[1]}"
    if machine.python < OLDEST_PYTHON:
        yield Missing(
            "Python 3.11 or newer",
            f"this is Python {version}",
            debian=("python3.11", "python3.11-venv"),
            fedora=("python3.11",),
            advice="then: make PYTHON=python3.11 install",
        )
        return
    if machine.python > NEWEST_PYTHON:
        newest = f"{NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
        yield Missing(
            f"Python {newest} or older",
            f"this is Python {version}, for which vLLM has no build",
            advice="install an older one beside it, then: make PYTHON=python3.11 install",
        )
        return
    if not machine.has_venv:
        why = "make install makes a virtual environment with it"
        yield Missing("Python's venv and ensurepip", why, (f"python{version}-venv",), ("python3-libs",))


def _libraries(machine: Machine) -> Iterator[Missing]:
    if not machine.has_numa:
        yield Missing("libnuma.so.1", "vLLM's CPU engine loads it", ("libnuma1",), ("numactl-libs",))


def _room(machine: Machine) -> Iterator[Missing]:
    if machine.memory is not None and machine.memory < MEMORY:
        yield Missing(
            "8 GB of memory",
            f"there are {_gb(machine.memory)}; an engine and two training processes are in it together",
            advice="use a larger machine, or raise the container's limit",
        )
    if machine.shared_memory is not None and machine.shared_memory < SHARED_MEMORY:
        yield Missing(
            "1 GB of /dev/shm",
            f"there are {_gb(machine.shared_memory)}; training processes exchange gradients through it",
            advice="mount -o remount,size=2G /dev/shm, or for a container: docker run --shm-size=2g",
        )
    needed = DISK_INSTALLED if machine.installed else DISK
    if machine.disk < needed:
        yield Missing(
            f"{_gb(needed)} of disk",
            f"{_gb(machine.disk)} are free at {machine.folder}; .venv alone takes 7 GB",
            advice="free space there, or check the project out on a larger disk",
        )


def _root(machine: Machine) -> Iterator[Missing]:
    if not machine.root:
        yield Missing(
            "root",
            "a real node of the test cluster has mounts, namespaces and cgroups, and its image is a Debian of its own",
            advice=f"run this as root, or without the tests of a real node: {WITHOUT_NODE}=1 make test",
        )


def _node_lacks() -> Iterator[str]:
    headers, compiler, pkg_config, plugins, nft, ip, spaces, mount, buildah, debootstrap = NODE_PACKAGES
    if not Path("/usr/include/seccomp.h").is_file():
        yield headers
    if not any(all(Path(folder, name).is_file() for name in CNI_PLUGINS) for folder in CNI_FOLDERS):
        yield plugins
    # Where an ordinary user's PATH may not lead.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    programs = {pkg_config: ["pkg-config"], nft: ["nft"], ip: ["ip"], spaces: ["unshare", "nsenter", "setpriv"], mount: ["mount"]}
    programs |= {compiler: ["gcc"], buildah: ["buildah"], debootstrap: ["debootstrap"]}
    for what, names in programs.items():
        if not all(shutil.which(name, path=path) for name in names):
            yield what


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _memory() -> int | None:
    """Of the machine, or of the container where that is less."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
        for limit in map(Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")):
            if limit.is_file() and limit.read_text().strip().isdigit():
                found.append(int(limit.read_text()))
    except OSError:
        pass
    return min(found) if found else None


def _gb(size: int) -> str:
    return f"{size / GIB:.1f} GB"


if __name__ == "__main__":
    sys.exit(main())
