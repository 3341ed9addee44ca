"""Documentation cannot rot: what exists is in it, and what it names exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from rlhf_api.metrics import Metric
from rlhf_api.reading.manifest import read_manifest
from rlhf_api.validation import validate
from rlhf_api.words import ArtifactKind, Reason, StageExit, StageName
from rlhfctl.exits import Exit
from rlhfctl.main import SECTIONS
from support.documents import ROOT, anchors, blocks, links, text_of

_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_FOLDERS = ("crds", "operator", "trainer", "cli", "charts", "docs", "tests", "tools", "locks", "examples", "benchmarks")
#: In backticks: a path from the root, or the end of one that names a Python file.
_PATH = re.compile(rf"`((?:{'|'.join(_FOLDERS)})/[\w./{{}},-]*|[\w./{{}},-]+\.py)`")


def targets() -> list[str]:
    return re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("target", targets())
def test_every_make_target_is_in_the_readme_or_in_contributing(target: str) -> None:
    assert f"make {target}" in text_of("README.md", "CONTRIBUTING.md")


@pytest.mark.parametrize("metric", list(Metric))
def test_every_metric_is_defined_with_its_unit(metric: Metric) -> None:
    assert f"| {metric.value} | {metric.unit} | {metric.definition} |" in text_of("docs/api.md")


@pytest.mark.parametrize("code", list(Exit))
def test_every_exit_code_of_rlhfctl_is_explained(code: Exit) -> None:
    assert f"| {int(code)} | {code.meaning} |" in text_of("docs/api.md")
    assert f"| {int(code)} | {code.meaning} |" in text_of("docs/cli.md")


@pytest.mark.parametrize("code", list(StageExit))
def test_every_exit_code_of_a_stage_is_explained(code: StageExit) -> None:
    assert f"| {int(code)} | {code.name.lower()} |" in text_of("docs/api.md")


@pytest.mark.parametrize("word", [*StageName, *ArtifactKind, *Reason])
def test_every_stage_artifact_and_reason_is_in_the_api_page(word: str) -> None:
    assert str(word) in text_of("docs/api.md")


@pytest.mark.parametrize("command", [entry.name for entries in SECTIONS.values() for entry in entries])
def test_every_command_has_a_section(command: str) -> None:
    assert f"### rlhfctl {command}\n" in text_of("docs/cli.md")


def test_the_tables_of_the_api_page_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "api_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("document", "target"), links())
def test_every_link_leads_somewhere(document: str, target: str) -> None:
    file, _, anchor = target.partition("#")
    path = (ROOT / document).parent / file if file else ROOT / document
    assert path.exists()
    assert not anchor or anchor in anchors(path)


def test_every_test_that_a_document_names_exists() -> None:
    for file, name in _TEST.findall(text_of()):
        assert (ROOT / file).exists(), file
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"


def test_every_file_that_a_document_names_exists() -> None:
    there = [f"/{path.relative_to(ROOT)}" for folder in _FOLDERS for path in (ROOT / folder).rglob("*.py")]
    for named in _PATH.findall(text_of()):
        for path in spelled_out(named):
            known = (ROOT / path).exists() or (path.endswith(".py") and any(file.endswith(f"/{path}") for file in there))
            assert known or path == "__init__.py", named


def spelled_out(path: str) -> list[str]:
    """`a/{b,c}.py` as a shell reads it."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    choices, _, after = rest.partition("}")
    return [one for choice in choices.split(",") for one in spelled_out(f"{before}{choice}{after}")]


def test_every_decision_is_in_the_index() -> None:
    index = text_of("docs/adr/README.md")
    for record in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        title = record.read_text(encoding="utf-8").splitlines()[0].removeprefix(f"# {record.name[:4]}: ")
        assert f"| [{record.name[:4]}]({record.name}) | {title} |" in index


def test_the_manifest_of_the_readme_is_valid() -> None:
    (manifest,) = [block.text for block in blocks("yaml") if block.document == "README.md"]
    assert len(manifest.splitlines()) <= 15
    raw = read_manifest(manifest).raw
    raw["spec"]["storage"] = {"url": "file:///where/--local/puts/it"}
    assert validate(raw, local=True).problems == ()


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_an_example_is_valid(example: str) -> None:
    raw = read_manifest((ROOT / "examples" / example).read_text(encoding="utf-8")).raw
    assert validate(raw, local=False).problems == ()
