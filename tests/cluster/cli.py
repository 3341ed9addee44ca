"""`python tests/cluster up|down|status`: a cluster to look at and to try things in; the tests start their own.

eval "$(python tests/cluster up)"     KUBECONFIG, and kubectl on PATH
kubectl get nodes
python tests/cluster down

With --size node (as root) it has one real node, which runs pods, and an S3 server. Images come from archives:
python tests/cluster import ARCHIVE
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster import node, start
from cluster.errors import ClusterError
from cluster.layout import SIZES, Layout, Size, all_layouts, layout, sweep
from cluster.node_handle import no_proxy
from cluster.node_s3 import NodeS3
from support.binaries import cache
from support.s3 import ACCESS_KEY, BUCKET, SECRET_KEY

_NAMES: dict[Size, str] = {"control": "default", "node": "node"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python tests/cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["up", "down", "status", "import"])
    parser.add_argument("archive", nargs="?", type=Path, help="of images, to import into a real node")
    parser.add_argument("--name", help="of the cluster, where several run side by side (default: that of its size; status: all)")
    parser.add_argument(
        "--size",
        choices=SIZES,
        default=SIZES[0],
        help="control: a control plane and simulated nodes (default; its name is `default`). node: one real node (named `node`)",
    )
    options = parser.parse_args(arguments)
    if (options.archive is not None) != (options.command == "import"):
        parser.error("`import` needs an archive, and nothing else takes one")
    if options.command == "import":
        options.size = "node"
    cluster = layout(options.name or _NAMES[options.size])
    try:
        sweep()
        match options.command:
            case "up":
                return _up(cluster, options.size)
            case "down":
                return _down(cluster)
            case "import":
                return _import(cluster, options.archive)
            case _:
                return _status(options.name)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _up(cluster: Layout, size: Size) -> int:
    start.up(cluster, size=size)
    print(f"export KUBECONFIG={shlex.quote(str(cluster.admin))}")
    print(f'export PATH={shlex.quote(str(cluster.bin))}:"$PATH"')
    if size == "node":
        # An address that clients would ask a proxy for, where the machine has one.
        print(f"export NO_PROXY={shlex.quote(no_proxy(cluster)['NO_PROXY'])}")
        s3 = NodeS3(cluster)
        print(f"S3: {s3.endpoint_url}, bucket {BUCKET}, keys {ACCESS_KEY} and {SECRET_KEY}, log {s3.access_log}", file=sys.stderr)
    if sys.stdout.isatty():
        command = f'eval "$(python tests/cluster up --size {size})"'
        print(f"To use it in this shell: {command}", file=sys.stderr)
    return 0


def _import(cluster: Layout, archive: Path) -> int:
    own = node.machine_of(cluster)
    node.import_image(own, archive)
    print("\n".join(node.image_names(own)))
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
        state = "up" if good else "broken"
        print(f"{cluster.folder.name}: {state} at {cluster.addresses.server}{of}, size {cluster.size}, KUBECONFIG={cluster.admin}")
        for component in cluster.components():
            identity = component.identity
            print(f"  {component.name}: {'ended, see ' + str(component.log) if identity is None else f'process {identity.pid}'}")
    if not up:
        print(f"No cluster is up in {cache() / 'clusters'}.", file=sys.stderr)
    return 0 if up else 1
