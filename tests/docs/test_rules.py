"""docs/rules.md: its example is a file that a stage takes, its manifests are valid, and its places are where modules are found."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_api.validation import validate
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.rule import RuleLabeler
from support.documents import ROOT, Block, blocks
from support.manifests import manifest

DOCUMENT = "docs/rules.md"
PLACE = "/opt/rules"


def of(language: str) -> list[Block]:
    return [block for block in blocks(language) if block.document == DOCUMENT]


def test_the_example_is_the_file_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = of("python")
    file = ROOT / "examples" / "grades.py"
    assert shown.text == file.read_text(encoding="utf-8")
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "grades", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    asked = [{"role": "user", "content": "What is 17 + 25?"}]
    labeler = RuleLabeler.load("grades:grade")
    del sys.modules["grades"]
    assert labeler.score([Response(asked, text) for text in ("42", "It is 42", "")]) == [1.0, 0.5, 0.0]


def test_what_it_shows_of_manifests_is_valid_together() -> None:
    shown: dict[str, Any] = {}
    for block in of("yaml"):
        shown |= yaml.safe_load(block.text)
    assert set(shown) == {"reward", "evaluate", "podDefaults"}
    assert validate(manifest({f"spec.{name}": value for name, value in shown.items()})).problems == ()


def test_what_is_mounted_or_copied_lies_on_the_path_of_the_image() -> None:
    (path,) = re.findall(r"\bPYTHONPATH=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert path == PLACE
    pod = next(yaml.safe_load(block.text)["podDefaults"] for block in of("yaml") if "podDefaults" in block.text)
    assert [mount["mountPath"] for mount in pod["volumeMounts"]] == [path]
    (dockerfile,) = of("dockerfile")
    (copied,) = [line.split()[-1] for line in dockerfile.text.splitlines() if line.startswith("COPY")]
    assert str(Path(copied).parent) == path
