"""One installation on the real node for all that is tested there end to end, and the table of the faults that were caused there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.node_handle import NodeCluster
from support.golden import updating
from support.node_installation import Installation, installed
from support.node_table import Table

_TABLE = pytest.StashKey[Table]()


@pytest.fixture(scope="session")
def installation(node_cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(node_cluster, tmp_path_factory.mktemp("installation")) as found:
        yield found


@pytest.fixture(scope="session")
def table(pytestconfig: pytest.Config) -> Table:
    return pytestconfig.stash.setdefault(_TABLE, Table())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    table = config.stash.get(_TABLE, None)
    if table is not None:
        terminalreporter.write_line(str(table))
        if updating() and exitstatus == 0:
            table.write_into_document()
