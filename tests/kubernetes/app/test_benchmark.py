"""benchmarks/operator_gap.py runs, at a tiny size, and finds what there is to find."""

from __future__ import annotations

import importlib
import re

import pytest

from cluster.handle import Cluster
from support.documents import ROOT

pytestmark = pytest.mark.cluster

SIZE = ("--runs", "2", "--listed", "6", "--takes", "0.3", "--seconds", "3")


def test_the_benchmark_prints_gaps_memory_and_requests_by_stage(
    cluster: Cluster, crd: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    # 1: slower than it should be, as it may be on a machine that does something else beside it.
    assert importlib.import_module("operator_gap").main(SIZE) in (0, 1)
    printed = capsys.readouterr().out
    assert _number(r": (\d+) gaps,", printed) >= 1
    assert _number(r"yardstick, .*: p50 (\S+),", printed) > 0
    assert _number(r"memory at most, .*: (\d+) MB", printed) > 30
    for request in ("create jobs", "create configmaps", "patch rlhfruns/status"):
        assert _number(rf"(\S+)  {request}$", printed) > 0
    assert "the operator says" not in printed


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, f"{pattern!r} is not in:\n{text}"
    return float(found[1])
