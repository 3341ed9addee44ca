"""benchmarks/mean_sigma.py: what docs/recipe.md shows of it is what it prints, and it draws what it says."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest

from support.documents import ROOT


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("mean_sigma")


def test_every_distribution_has_mean_0_and_standard_deviation_1(benchmark: ModuleType) -> None:
    skewness = {}
    for name, draw in benchmark.DISTRIBUTIONS.items():
        scores = draw(np.random.default_rng(0), 400_000)
        assert scores.mean() == pytest.approx(0, abs=0.01)
        assert scores.std() == pytest.approx(1, abs=0.02)
        skewness[name] = float((scores**3).mean())
    assert skewness["skewed"] == pytest.approx(-1.75, abs=0.1)
    assert skewness["normal"] == pytest.approx(0, abs=0.05)


def test_it_prints_the_same_again_and_the_document_has_its_form(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for _ in range(2):
        benchmark.main(["--prompts", "20", "--seed", "3"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    lines = printed[0].splitlines()
    shown = (ROOT / "docs" / "recipe.md").read_text().splitlines()
    assert lines[0] in shown
    begin = shown.index(lines[0])
    assert [line.split("|")[1:3] for line in lines] == [line.split("|")[1:3] for line in shown[begin : begin + len(lines)]]
