"""Our own validation refuses what the API server refuses, at the same field; what it knows beyond that is listed by name."""

from __future__ import annotations

import json

import pytest

from rlhf_api.validation import validate
from rlhf_api.validation.check import CLUSTER_RULES, RULES
from support.manifests import manifest
from support.wrong_manifests import ONLY_OURS, WRONG
from support.wrong_shapes import Wrong

#: Rules that the API server knows too, as a schema or in CEL. Of `judge_is_independent` it knows all but the lineage,
#: and rules without a function.
SERVER_TOO = {
    "unions",
    "store_is_shared",
    "uris_are_whole",
    "revisions_fit",
    "held_out_leaves_some",
    "batch_divides",
    "prompt_leaves_room",
    "budget_holds_a_row",
    "offload_fits_zero",
    "parallelism_within_shards",
    "numbered_iterates_exist",
    "validation_has_prompts",
    "against_once",
    "selection_is_measured",
    "metrics_are_measured",
    "gate_bounds_fit_the_unit",
    "approvals_name_gates",
    "pairs_are_there_to_ask_about",
    "annotations_answer_questions",
    "environment_is_free",
    "volume_names_are_free",
}
#: A folder as a store is refused as a whole, and a local run is not for the API server.
NOT_FOR_A_CLUSTER = {"store_settings_fit"}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_our_own_validation_refuses_it_at_the_same_field(wrong: Wrong) -> None:
    assert wrong.path in [problem.path for problem in validate(manifest(wrong.changes)).invalid]


def test_the_table_is_long_and_names_nothing_twice() -> None:
    assert len(WRONG) >= 150
    changes = [json.dumps(wrong.changes, default=str, sort_keys=True) for wrong in WRONG]
    assert len(set(changes)) == len(WRONG)


def test_every_rule_of_our_own_is_known_to_the_api_server_or_listed() -> None:
    rules = {rule.__name__ for rule in (*RULES, *CLUSTER_RULES)} - {"not_available"}
    assert rules == SERVER_TOO | (ONLY_OURS.keys() - {"keys of resources"}) | NOT_FOR_A_CLUSTER
