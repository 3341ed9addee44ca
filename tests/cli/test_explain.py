"""explain: the schema's documentation, found by name."""

from __future__ import annotations

import pytest

from rlhf_api.metrics import Metric
from rlhf_api.schema import run_schema, walk
from rlhfctl.exits import Exit
from rlhfctl.fields import find
from support.rlhfctl import assert_golden, rlhfctl


@pytest.mark.parametrize("field", ["train.loss", "sample.mixture", "spec.train.optimization.learningRate"])
def test_a_field_is_explained(field: str) -> None:
    done = rlhfctl("explain", field)
    assert (done.code, done.err) == (0, "")
    assert_golden(f"explain-{field}.txt", done.out)


def test_every_field_of_the_api_can_be_found() -> None:
    for path, _ in walk(run_schema()):
        assert find(".".join(path)).name == path[-1]


def test_list_indexes_in_a_path_are_passed_over() -> None:
    assert find("spec.gates[1].metric").path == "spec.gates.metric"


@pytest.mark.parametrize("metric", list(Metric), ids=lambda metric: metric.value)
def test_every_metric_is_explained_by_its_name(metric: Metric) -> None:
    done = rlhfctl("explain", metric.value) if metric is Metric.KL_TO_INITIAL else None
    assert done is None or metric.unit in done.out
    assert metric.definition


def test_a_misspelt_field_names_the_nearest() -> None:
    done = rlhfctl("explain", "train.los")
    assert done.code == Exit.NOT_FOUND
    assert "did you mean 'loss'?" in done.err


def test_a_field_that_lies_elsewhere_is_pointed_at() -> None:
    done = rlhfctl("explain", "beta")
    assert done.code == Exit.NOT_FOUND
    assert "rlhfctl explain train.loss.beta" in done.err
