"""What holds for the checkout as a whole: where files may lie, how long they get, what tests may not do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rlhf_api.words import StageName
from support.documents import ROOT

PACKAGES = ("crds/rlhf_api", "operator/rlhf_operator", "trainer/rlhf_store", "trainer/rlhf_trainer", "cli/rlhfctl")
LONGEST = 400
"""Lines of a file."""
LARGEST = 12
"""Files of a room, and rooms in it: about ten."""
ONE_EACH = {"trainer/rlhf_trainer/stages": len(StageName)}
"""Rooms with one file for each word of a list."""


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_no_folder_that_is_no_package_has_an_init_file() -> None:
    """ADR 0001: operator/__init__.py would shadow the standard library's operator."""
    wrong = [folder for folder in ("crds", "operator", "trainer", "cli") if (ROOT / folder / "__init__.py").exists()]
    assert wrong == []
    assert [path for path in sources("tests") if path.name == "__init__.py"] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_a_package_is_one(package: str) -> None:
    folders = {path.parent for path in sources(package)}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_files_stay_short() -> None:
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES, "tests", "tools", "benchmarks")
    }
    assert {path.name: length for path, length in lengths.items() if length > LONGEST} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_stay_small(package: str) -> None:
    """ADR 0015."""
    rooms = {path.parent for path in sources(package)}
    sizes = {
        str(room.relative_to(ROOT)): len([entry for entry in room.iterdir() if not entry.name.startswith("__")]) for room in rooms
    }
    assert {room: size for room, size in sizes.items() if size > ONE_EACH.get(room, LARGEST)} == {}


def test_what_a_program_may_use_of_the_cli_writes_nothing() -> None:
    """What they have to say they return, or hand to a callable; import contracts keep click and the terminal out."""
    for path in sources("cli/rlhfctl/client", "cli/rlhfctl/sources", "cli/rlhfctl/results"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute | ast.Name)
        ]
        said = [node.lineno for node in nodes if ast.unparse(node) in ("print", "sys.stdout", "sys.stderr")]
        assert said == [], path.relative_to(ROOT)


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    skipping = re.compile(r"\b(?:pytest\.(?:skip|xfail|importorskip)|mark\.(?:skip|skipif|xfail)|unittest\.skip)\b")
    assert [
        path.name for path in sources("tests") if path != Path(__file__) and skipping.search(path.read_text(encoding="utf-8"))
    ] == []


def test_no_test_has_an_empty_body() -> None:
    for path in sources("tests"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert any(not isinstance(statement, ast.Pass | ast.Expr) or _does(statement) for statement in node.body), node.name


def test_ci_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert {"make install", "make lint", "make test"} <= set(re.findall(r"make [a-z-]+", text))


def _does(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)
