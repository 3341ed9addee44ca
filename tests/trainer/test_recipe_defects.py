"""The released code's defects (the table of docs/recipe.md), each absent by construction, each with the tests that name it.

A test that is called test_defect_… shows that we do not have one; the table says of which, and none is missing on either side.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def defects() -> dict[str, list[tuple[str, str]]]:
    """File and name of each test, by defect: the rows of the table."""
    section = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8").partition("## Defects that cannot happen here")[2]
    rows = [line.split(" | ") for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")][2:]
    return {row[0].removeprefix("| "): _TEST.findall(row[-1]) for row in rows}


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("defect", defects())
def test_each_defect_has_the_tests_that_name_it(defect: str) -> None:
    tests = defects()[defect]
    assert tests
    assert [f"{file}::{name}" for file, name in tests if name not in functions_of(ROOT / file)] == []


def test_each_test_that_names_a_defect_belongs_to_one() -> None:
    named = {name for tests in defects().values() for _, name in tests if name.startswith("test_defect_")}
    files = (ROOT / "tests").rglob("test_*.py")
    assert {name for file in files for name in functions_of(file) if name.startswith("test_defect_")} == named
