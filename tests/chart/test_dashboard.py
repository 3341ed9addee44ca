"""The dashboard shows what the operator counts, and all of it."""

from __future__ import annotations

import json
import re

from rlhf_operator.kubernetes.telemetry.metrics import Metrics
from support.helm import CHART

DASHBOARD = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
_NAME = re.compile(r"\b(?:rlhf|process|python)_[a-z_]+\b")
_SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def counted() -> dict[str, set[str]]:
    """Names of families → names under which Prometheus has their samples."""
    metrics = Metrics()
    metrics.serve_runs(dict)
    metrics.serve_untouched(lambda: 0)
    metrics.serve_queue(lambda: 0)
    return {family.name: {family.name + end for end in _SAMPLES[family.type]} for family in metrics.registry.collect()}


def test_every_metric_of_the_dashboard_is_one_that_the_operator_has() -> None:
    named = {name for query in QUERIES for name in _NAME.findall(query)}
    assert named - set().union(*counted().values()) == set()


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    queries = " ".join(QUERIES)
    ours = {name: samples for name, samples in counted().items() if name.startswith("rlhf_")}
    assert len(ours) >= 10
    assert [name for name, samples in ours.items() if not any(re.search(rf"\b{sample}\b", queries) for sample in samples)] == []


def test_every_panel_has_a_title_a_query_and_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert all(panel["targets"] for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_parentheses_of_every_query_close() -> None:
    for query in QUERIES:
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]")), query
