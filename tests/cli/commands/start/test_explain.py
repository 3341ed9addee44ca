"""explain: the schema's documentation, found by name."""

from __future__ import annotations

import pytest

from rlhf_api.explain import all_fields
from rlhf_api.metrics import Metric
from rlhfctl.exits import Exit
from support.rlhfctl import assert_screen, rlhfctl


@pytest.mark.parametrize("field", ["train.loss", "sample.mixture", "spec.train.optimization.learningRate"])
def test_a_field_is_explained(field: str) -> None:
    done = rlhfctl("explain", field)
    assert (done.code, done.err) == (0, "")
    assert_screen(f"explain-{field}.txt", done.out)


def test_every_field_of_the_api_is_documented() -> None:
    assert [field.path for field in all_fields() if not field.description] == []


def test_list_indexes_in_a_path_are_passed_over() -> None:
    assert rlhfctl("explain", "spec.gates[1].metric").out.startswith("FIELD    spec.gates.metric")


def test_a_metric_is_explained_by_its_name() -> None:
    done = rlhfctl("explain", "klToInitial")
    assert Metric.KL_TO_INITIAL.unit in done.out
    assert "fp32 log-softmax" in done.out


def test_a_misspelt_field_names_the_nearest() -> None:
    done = rlhfctl("explain", "train.los")
    assert done.code == Exit.NOT_FOUND
    assert "rlhfctl explain train.loss" in done.err


def test_a_field_that_lies_elsewhere_is_pointed_at() -> None:
    done = rlhfctl("explain", "beta")
    assert done.code == Exit.NOT_FOUND
    assert "rlhfctl explain train.loss.beta" in done.err
