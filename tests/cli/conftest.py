"""Fixtures of the CLI's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.handle import Cluster
from support.cluster_runs import ClusterRuns


@pytest.fixture
def runs(cluster: Cluster, crd: None, namespace: str, tmp_path: Path) -> ClusterRuns:
    """The runs of a namespace of this test's own, on a real API server."""
    return ClusterRuns(cluster, namespace, tmp_path)
