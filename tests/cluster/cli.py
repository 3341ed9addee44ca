"""`python tests/cluster up|down|status`: a cluster to look at and to try things in; the tests start their own.

eval "$(python tests/cluster up)"     KUBECONFIG, and kubectl on PATH
kubectl get nodes
python tests/cluster down
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from cluster import start
from cluster.errors import ClusterError
from cluster.layout import SIZES, Layout, all_layouts, layout, sweep
from support.binaries import cache


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--name", help="of the cluster, where several run side by side (default: default; status: all)")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="control: a control plane and simulated nodes (default)")
    options = parser.parse_args(arguments)
    cluster = layout(options.name or "default")
    try:
        sweep()
        match options.command:
            case "up":
                return _up(cluster)
            case "down":
                return _down(cluster)
            case _:
                return _status(options.name)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _up(cluster: Layout) -> int:
    start.up(cluster)
    print(f"export KUBECONFIG={shlex.quote(str(cluster.admin))}")
    print(f'export PATH={shlex.quote(str(cluster.bin))}:"$PATH"')
    if sys.stdout.isatty():
        command = 'eval "$(python tests/cluster up)"'
        print(f"To use it in this shell: {command}", file=sys.stderr)
    return 0


def _down(cluster: Layout) -> int:
    if not start.down(cluster):
        print(f"There is no cluster {cluster.folder.name}.", file=sys.stderr)
    return 0


def _status(name: str | None) -> int:
    """Of all that are here, or of one; exit 1 where none is up."""
    up = 0
    for cluster in all_layouts():
        if name not in (None, cluster.folder.name):
            continue
        good = start.is_up(cluster)
        up += good
        owner = cluster.owner
        of = "" if owner is None else f", of test process {owner.pid}"
        print(f"{cluster.folder.name}: {'up' if good else 'broken'} at {cluster.addresses.server}{of}, KUBECONFIG={cluster.admin}")
        for component in cluster.components():
            identity = component.identity
            print(f"  {component.name}: {'ended, see ' + str(component.log) if identity is None else f'process {identity.pid}'}")
    if not up:
        print(f"No cluster is up in {cache() / 'clusters'}.", file=sys.stderr)
    return 0 if up else 1
