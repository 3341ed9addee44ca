"""What the API has and this version cannot do yet: one table, reported apart from what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.validation import Category, validate
from rlhf_api.validation.rules.not_available import NOT_AVAILABLE
from support.manifests import compared, manifest

MODEL = {"uri": "hf://owner/other"}
LABELERS: dict[str, dict[str, Any]] = {
    "Human": {"type": "Human", "human": {}},
}
DATA = [{"name": "a", "uri": "hf://owner/data"}]
OF_OWN_CODE = {**MODEL, "trustRemoteCode": True}
KEY = {"name": "ours", "key": "value"}
CASES: list[tuple[dict[str, Any], str]] = [
    *(({"spec.evaluate.judge": labeler}, "spec.evaluate.judge.type") for labeler in LABELERS.values()),
    ({"spec.policy.model": {**MODEL, "trustRemoteCode": True}}, "spec.policy.model.trustRemoteCode"),
    (
        {
            "spec.reward": {
                "type": "BradleyTerry",
                "bradleyTerry": {"train": {"data": DATA, "base": {**MODEL, "trustRemoteCode": True}}},
            }
        },
        "spec.reward.bradleyTerry.train.base.trustRemoteCode",
    ),
    (
        {
            "spec.evaluate.judge": {
                "type": "BradleyTerry",
                "bradleyTerry": {"train": {"data": DATA, "base": {**MODEL, "trustRemoteCode": True}}},
            }
        },
        "spec.evaluate.judge.bradleyTerry.train.base.trustRemoteCode",
    ),
    ({"spec.reward": compared(base=OF_OWN_CODE)}, "spec.reward.pairwise.train.base.trustRemoteCode"),
    ({"spec.evaluate.judge": compared(base=OF_OWN_CODE)}, "spec.evaluate.judge.pairwise.train.base.trustRemoteCode"),
]


@pytest.mark.parametrize(("changes", "path"), CASES, ids=[f"{path}-{index}" for index, (_, path) in enumerate(CASES)])
def test_it_is_named_and_does_not_count_as_wrong(changes: dict[str, Any], path: str) -> None:
    checked = validate(manifest(changes))
    (problem,) = checked.problems
    assert (problem.path, problem.category) == (path, Category.NOT_AVAILABLE)
    assert problem.wrong.endswith("is not available in this version")
    assert checked.run is not None
    assert not checked.invalid
    assert not checked.ok


def test_a_deepspeed_configuration_of_ones_own_does_not_switch_other_rules_off() -> None:
    compute = {"deepspeed": {"offload": "All", "config": KEY}}
    assert [problem.path for problem in validate(manifest({"spec.train.compute": compute})).problems] == [
        "spec.train.compute.deepspeed.offload"
    ]


def test_every_entry_of_the_table_has_a_case() -> None:
    assert len(CASES) == len(NOT_AVAILABLE)


@pytest.mark.parametrize("place", ["spec.reward", "spec.evaluate.judge"])
@pytest.mark.parametrize(
    "labeler", [{"type": "MultiObjective", "multiObjective": {"model": MODEL}}, {"type": "Judge", "judge": {"model": MODEL}}]
)
def test_labelers_that_read_a_model_are_available(place: str, labeler: dict[str, Any]) -> None:
    assert validate(manifest({place: labeler})).problems == ()


def test_deterministic_sampling_is_available() -> None:
    assert validate(manifest({"spec.sample.deterministic": True})).problems == ()
