"""The fixture `node_cluster`; tests/conftest.py takes it in.

With KUBECONFIG set to the cluster of `python tests/cluster up --size node`, the tests use that one; else they start their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import start
from cluster.layout import Layout, layout, sweep
from cluster.node_handle import NodeCluster, no_proxy
from cluster.processes import Identity
from support.s3 import ENVIRONMENT


@pytest.fixture(scope="session")
def node_cluster() -> Iterator[NodeCluster]:
    """A real node, for the whole session. A test takes a namespace of its own.

    The environment has the keys of its S3 server, and no proxy before it.
    """
    with running(layout(f"pytest-{os.getpid()}-node")) as found, pytest.MonkeyPatch.context() as environment:
        for name, value in {**ENVIRONMENT, **no_proxy(found.layout)}.items():
            environment.setenv(name, value)
        yield found


@contextmanager
def running(own: Layout) -> Iterator[NodeCluster]:
    sweep()
    given = Path(os.environ.get("KUBECONFIG") or "/nowhere").resolve()
    if Layout(given.parent).exists and Layout(given.parent).size == "node":
        yield NodeCluster(Layout(given.parent))
        return
    start.up(own, Identity.of(os.getpid()), "node")
    try:
        yield NodeCluster(own)
    finally:
        start.down(own)
