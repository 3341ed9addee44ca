"""The folder of one cluster: `${RLHF_CACHE:-~/.cache/rlhf-operator}/clusters/<name>`.

cluster.json   addresses, size, and who started it
admin.conf     kubeconfig of its administrator
bin/           kubectl and the others under their plain names, for PATH
pki/ etcd/ log/ run/   certificates, data, a log and a process record a component
pods/          what `kubectl logs` shows of simulated pods: <namespace>/<pod>.log
machine.json machine/ s3/   of a real node: what it has of this machine, its files, its S3 server's
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from cluster import machine
from cluster.addresses import Addresses
from cluster.processes import Component, Identity
from support.binaries import cache

Size = Literal["control", "node"]
"""What a cluster is made of beside a whole control plane. `control`: simulated nodes. `node`: one real node, and an S3 server."""
SIZES: tuple[Size, ...] = get_args(Size)


@dataclass(frozen=True)
class Layout:
    folder: Path

    @property
    def admin(self) -> Path:
        return self.folder / "admin.conf"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def pods(self) -> Path:
        return self.folder / "pods"

    @property
    def audit(self) -> Path:
        return self.folder / "log" / "audit.log"

    @property
    def s3(self) -> Path:
        return self.folder / "s3"

    @property
    def size(self) -> Size:
        size: Size = json.loads((self.folder / "cluster.json").read_text()).get("size", SIZES[0])
        return size

    @property
    def addresses(self) -> Addresses:
        return Addresses(**json.loads((self.folder / "cluster.json").read_text())["addresses"])

    @property
    def owner(self) -> Identity | None:
        """The process that a cluster belongs to; None for one that stays until `down`."""
        owner = json.loads((self.folder / "cluster.json").read_text())["owner"]
        return Identity(**owner) if owner else None

    @property
    def exists(self) -> bool:
        return (self.folder / "cluster.json").exists()

    def record(self, addresses: Addresses, owner: Identity | None, size: Size = "control") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"size": size, "addresses": asdict(addresses), "owner": asdict(owner) if owner else None}
        beside = self.folder / "cluster.json.new"
        beside.write_text(json.dumps(content))
        beside.replace(self.folder / "cluster.json")

    def component(self, name: str) -> Component:
        return Component(self.folder, name)

    def components(self) -> list[Component]:
        """In the order of their start."""
        return Component.all(self.folder)

    def remove(self) -> None:
        """End whatever of it runs, the last to start first, and nothing but what its records name; then its folder goes.

        Its data go, too, so nobody needs time to save them.
        """
        self.end_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def end_all(self) -> None:
        for component in reversed(self.components()):
            component.kill()
            component.forget()
        machine.end(self.folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else starts, ends or sweeps it meanwhile."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        path = self.folder.parent / f".{self.folder.name}.lock"
        while True:
            with path.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                # Whoever held it before may have removed it with the cluster: then it keeps nobody out any more.
                if not _is_file(path, lock.fileno()):
                    continue
                try:
                    yield
                finally:
                    if not self.folder.exists():
                        path.unlink()
                return


def layout(name: str) -> Layout:
    return Layout(cache() / "clusters" / name)


def all_layouts() -> list[Layout]:
    return [Layout(path.parent) for path in sorted((cache() / "clusters").glob("*/cluster.json"))]


def sweep() -> None:
    """End and remove the clusters of test sessions that died without doing so themselves."""
    for found in all_layouts():
        # Asked again under the lock, but nobody waits for the lock of a cluster that is just starting.
        if _is_left(found):
            with found.locked():
                if _is_left(found):
                    found.remove()


def _is_left(found: Layout) -> bool:
    return found.exists and found.owner is not None and not found.owner.alive


def _is_file(path: Path, descriptor: int) -> bool:
    with suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
