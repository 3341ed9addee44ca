"""A loopback address of its own for each cluster, so that two clusters, and whatever else listens here, never meet.

The whole of 127.0.0.0/8 is this machine; nothing of it can be reached from outside.
"""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass

from cluster.errors import ClusterError

#: Where clients and servers of these programs expect them; only somebody who listens on all addresses takes one away.
_USUAL = {"api": 6443, "etcd": 2379, "peer": 2380, "controller_manager": 10257, "scheduler": 10259, "kwok": 10247, "kubelet": 10250}
#: Below the range from which the kernel gives ports to clients.
_OTHERS = range(20000, 32000)


@dataclass(frozen=True)
class Addresses:
    """Host and port of each listener."""

    host: str
    api: int
    etcd: int
    peer: int
    controller_manager: int
    scheduler: int
    kwok: int
    kubelet: int

    @classmethod
    def usual(cls, host: str) -> Addresses:
        """For a host where nobody else listens."""
        return cls(host, **_USUAL)

    @property
    def server(self) -> str:
        return f"https://{self.host}:{self.api}"


def free(source: random.Random) -> Addresses:
    """An address on which nobody listens now."""
    host = f"127.{source.randint(32, 254)}.{source.randint(0, 254)}.{source.randint(1, 254)}"
    ports: dict[str, int] = {}
    for name, usual in _USUAL.items():
        port = usual
        while port in ports.values() or not _is_free(host, port):
            port = source.choice(_OTHERS)
        ports[name] = port
    return Addresses(host, **ports)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ClusterError(
                    f"nobody can listen on {host}:{port} here ({error}); is the loopback interface up? (ip link)"
                ) from error
            return False
        return True
