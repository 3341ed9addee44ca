"""Helm for all tests of the chart."""

from __future__ import annotations

import pytest

from support.helm import Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Without a cluster: it renders and lints."""
    return Helm(tmp_path_factory.mktemp("helm"))
