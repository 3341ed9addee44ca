"""Tests that may be left out, by a variable: they need what not every machine has. tests/conftest.py takes the hooks in."""

from __future__ import annotations

import os

import pytest

from cluster.programs import WITHOUT_NODE
from support.published import WITHOUT_REAL

#: Mark → variable that is set to 1.
VARIABLES = {"node": WITHOUT_NODE, "real": WITHOUT_REAL}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(map(item.get_closest_marker, _marks()))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody shall take a run without them for a whole one."""
    for mark in _marks():
        terminalreporter.write_line(f"{VARIABLES[mark]}=1: the tests marked `{mark}` were left out", yellow=True)


def _marks() -> list[str]:
    return [mark for mark, variable in VARIABLES.items() if os.environ.get(variable) == "1"]
