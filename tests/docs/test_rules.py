"""docs/rules.md: its example is a file that a stage takes, its manifests are valid, and its places are where modules are found."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_api.resource.labeler import Rule
from rlhf_api.validation import validate
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.declared.labeler import DeclaredLabeler
from rlhf_trainer.labelers.declared.patterns import LinearPattern
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
    """Each with those before it; the last word on a field is the one that holds."""
    shown: dict[str, Any] = {}
    for block in of("yaml"):
        shown |= yaml.safe_load(block.text)
        assert validate(manifest({f"spec.{name}": value for name, value in shown.items()})).problems == ()
    assert set(shown) == {"prompts", "reward", "evaluate", "podDefaults"}


def test_rules_that_it_states_score_as_it_says() -> None:
    shown = [yaml.safe_load(block.text) for block in of("yaml") if "entryPoint" not in block.text]
    stated = [Rule.model_validate(part["reward"]["rule"]) for part in shown if "reward" in part]
    number, form = map(DeclaredLabeler.load, stated)
    answer = "17 + 25 = 42\n#### 42"
    assert number.score([Response([], text, answer=answer) for text in ("It is 42.", "42 or 43", "")]) == [1.0, 0.0, 0.0]
    assert form.score([Response([], text) for text in ('```json\n{"name": "Ada"}\n```', '{"name": 3}', "")]) == [1.0, 0.0, 0.0]


def test_patterns_that_it_shows_find_what_it_says() -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    for pattern, found in ((r"(?s).*\\boxed\{(.*?)\}", "2"), ("([0-9.]+) *%", "50")):
        assert f"`{pattern}`" in text
        assert LinearPattern(pattern, "x").first_groups([r"\boxed{1} is 50 %, so \boxed{2}."]) == [found]


def test_what_is_mounted_or_copied_lies_on_the_path_of_the_image() -> None:
    (path,) = re.findall(r"\bPYTHONPATH=(\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert path == PLACE
    pod = next(yaml.safe_load(block.text)["podDefaults"] for block in of("yaml") if "podDefaults" in block.text)
    assert [mount["mountPath"] for mount in pod["volumeMounts"]] == [path]
    (dockerfile,) = of("dockerfile")
    (copied,) = [line.split()[-1] for line in dockerfile.text.splitlines() if line.startswith("COPY")]
    assert str(Path(copied).parent) == path
