"""The released code's defects (docs/recipe.md, section 5), each absent by construction, each with a test that names it.

A test that names one is called test_defect_…; this table says which belong to which, and the test below that none is missing.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

#: The defect, and the tests that show that we do not have it.
DEFECTS: dict[str, list[str]] = {
    "K differs between generation and labeling, every row is dropped, and the loop goes on training on nothing": [
        "test_defect_a_prompt_with_fewer_completions_is_counted_and_does_not_drop_the_others",
        "test_defect_too_small_a_yield_fails_the_stage_with_counts",
        "test_defect_training_on_nothing_is_an_error",
    ],
    "max_min_p flips labels": ["test_defect_a_label_is_never_flipped"],
    "max_random takes only index 0 or 1": ["test_defect_best_vs_random_reaches_every_index"],
    "evaluation data is the training data": ["test_defect_evaluation_prompts_are_never_training_prompts"],
    "policy in fp16 against a bf16 reference": ["test_defect_policy_and_reference_are_loaded_in_one_dtype"],
    "ties make pairs": ["test_defect_ties_never_make_a_pair"],
    "reference log-probs are recomputed each epoch": ["test_defect_the_trainer_never_computes_reference_log_probs_in_its_loop"],
    "local rank together with the global world size": ["test_defect_shares_of_ranks_are_disjoint_over_all_nodes"],
    "the sampler drops the remainder of a split": ["test_defect_no_remainder_is_lost_whatever_the_number_of_shards"],
    "EOS is appended to samples that stopped for length": [
        "test_defect_nothing_is_appended_to_what_the_engine_returned",
        "test_defect_cut_text_never_gets_an_eos",
    ],
    "double BOS": ["test_defect_bos_is_written_once", "test_defect_double_bos_is_refused"],
    "text to ids to text to ids drifts": ["test_defect_ids_and_never_text_pass_between_stages"],
    "pad = eos makes a reward model read the wrong token": ["test_defect_the_reward_is_read_at_the_last_real_token"],
    "rewards vary with batch and padding": ["test_defect_rewards_depend_on_neither_batch_nor_order_nor_padding"],
    "several EOS ids: finished samples counted as clipped": ["test_defect_several_eos_ids_all_end_a_response"],
    "a reward model loaded through the wrong class has random heads": [
        "test_defect_a_language_model_is_no_reward_model",
        "test_defect_a_checkpoint_with_missing_weights_is_refused",
        "test_defect_a_language_model_as_reward_is_refused_before_anything_runs",
    ],
    "DPO starts at something else than 0.693 because of a template mismatch": [
        "test_defect_dpo_starts_at_log_two",
        "test_defect_a_loss_starts_where_it_must_while_policy_equals_reference",
        "test_defect_reference_log_probs_of_another_template_or_model_are_refused",
    ],
    "the reward sees a cut response as if it had ended": ["test_defect_a_cut_response_can_be_kept_from_being_chosen"],
    "a judge fine-tuned from the training reward": [
        "test_defect_a_judge_that_descends_from_the_training_reward_is_refused",
    ],
    "exports without gathered weights, with broken ties or padded embeddings, with invalid generation configs": [
        "test_defect_an_export_is_whole_at_every_zero_stage",
        "test_defect_tied_embeddings_stay_tied_and_are_never_resized",
        "test_defect_an_export_that_computes_something_else_is_not_sealed",
    ],
    "length blow-up, seen by nobody": ["test_defect_a_win_by_length_alone_is_told_apart_from_a_better_answer"],
    "a prompt cut on the wrong side, or longer than the limit, trains on nothing": [
        "test_defect_a_prompt_is_never_cut_and_one_beyond_the_limit_trains_nothing",
    ],
}


def names_of_defect_tests() -> set[str]:
    found = set()
    for file in TESTS.glob("test_*.py"):
        functions = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))
        found |= {function.name for function in functions if function.name.startswith("test_defect_")}
    return found


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_the_tests_that_name_it(defect: str) -> None:
    assert set(DEFECTS[defect]) <= names_of_defect_tests()


def test_each_test_that_names_a_defect_belongs_to_one() -> None:
    assert names_of_defect_tests() == {name for names in DEFECTS.values() for name in names}
