"""Scored completions to pairs: the table, and what holds for every input."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.training import LengthStopped, Pairing, PairingStrategy
from rlhf_trainer.labelers.pairing import Paired, Scored, make_pairs

EVERY_STRATEGY = list(PairingStrategy)
scores = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5 + 1e-9, 2.0, 3.5]), min_size=2, max_size=8)


def scored(values: Sequence[float], stopped: Sequence[bool] | None = None) -> list[Scored]:
    return [Scored(i, value, stopped is None or stopped[i]) for i, value in enumerate(values)]


def pairs(values: Sequence[float], pairing: Pairing, stopped: Sequence[bool] | None = None, seed: int = 0) -> Paired:
    return make_pairs(scored(values, stopped), pairing, seed, "prompt")


def indices(paired: Paired) -> list[tuple[int, int]]:
    return [(pair.chosen.index, pair.rejected.index) for pair in paired.pairs]


@pytest.mark.parametrize(
    ("strategy", "values", "expected"),
    [
        (PairingStrategy.BEST_WORST, [1.0, 3.0, 2.0, 0.0], [(1, 3)]),
        (PairingStrategy.BEST_SECOND, [1.0, 3.0, 2.0, 0.0], [(1, 2)]),
        (PairingStrategy.ALL_ABOVE_MARGIN, [1.0, 3.0, 2.5], [(1, 0), (2, 0)]),
        (PairingStrategy.BEST_WORST, [3.0, 3.0, 0.0, 0.0], [(0, 2)]),
        (PairingStrategy.BEST_SECOND, [3.0, 3.0, 0.0], []),
        (PairingStrategy.BEST_WORST, [1.0, 1.5], []),
        # mu - 2 sigma is -2.74: -1 is nearer to it than the worst, -6.
        (PairingStrategy.MEAN_SIGMA, [3.0, -6.0, -1.0, *[2.0] * 13], [(0, 2)]),
        (PairingStrategy.MEAN_SIGMA, [1.0, 3.0, 2.0, 0.0], [(1, 3)]),
    ],
)
def test_the_table_of_strategies(strategy: PairingStrategy, values: list[float], expected: list[tuple[int, int]]) -> None:
    assert indices(pairs(values, Pairing(strategy=strategy, min_margin=0.9))) == expected


@given(st.lists(st.integers(-1000, 1000).map(float), min_size=2, max_size=10))
def test_of_ten_responses_or_fewer_the_one_nearest_to_two_sigmas_below_is_the_worst(values: list[float]) -> None:
    """docs/recipe.md says so. Of eleven it need not be."""
    nearest, worst = (Pairing(strategy=strategy) for strategy in (PairingStrategy.MEAN_SIGMA, PairingStrategy.BEST_WORST))
    assert pairs(values, nearest) == pairs(values, worst)
    eleven = [-22.0, -19.5, *[4.5] * 9]
    assert (indices(pairs(eleven, nearest)), indices(pairs(eleven, worst))) == ([(2, 1)], [(2, 0)])


@given(scores, st.sampled_from(EVERY_STRATEGY), st.integers(0, 20))
def test_defect_ties_never_make_a_pair(values: list[float], strategy: PairingStrategy, seed: int) -> None:
    for pair in pairs(values, Pairing(strategy=strategy), seed=seed).pairs:
        assert pair.chosen.score > pair.rejected.score


@given(scores, st.sampled_from(EVERY_STRATEGY), st.floats(0.0, 3.0), st.integers(0, 20))
def test_every_pair_is_above_the_margin_and_the_right_way_round(
    values: list[float], strategy: PairingStrategy, margin: float, seed: int
) -> None:
    """Labels are never flipped: the released code's `max_min_p` did that with some probability."""
    for pair in pairs(values, Pairing(strategy=strategy, min_margin=margin), seed=seed).pairs:
        assert pair.chosen.score - pair.rejected.score > margin
        assert pair.chosen.score == values[pair.chosen.index]


@given(scores, st.sampled_from(EVERY_STRATEGY))
def test_a_prompt_gives_pairs_or_a_reason_and_never_both(values: list[float], strategy: PairingStrategy) -> None:
    paired = pairs(values, Pairing(strategy=strategy, min_margin=0.7))
    assert bool(paired.pairs) != bool(paired.dropped)
    if len(set(values)) == 1:
        assert paired.dropped == "promptsTied"


@pytest.mark.parametrize(
    ("values", "minimum", "expected", "dropped"),
    [
        # Of 0 and 2 the standard deviation is 1.
        ([0.0, 2.0], 0.99, [(1, 0)], None),
        ([0.0, 2.0], 1.0, [], "promptsBelowRewardStd"),
        # A range of 3, as the next, and most of it by one response.
        ([0.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0], 1.0, [], "promptsBelowRewardStd"),
        ([0.0, 0.0, 0.0, 0.0, 3.0, 3.0, 3.0, 3.0], 1.0, [(4, 0)], None),
        ([0.0, 0.0], 0.0, [], "promptsTied"),
        ([0.0, 0.0], 5.0, [], "promptsTied"),
        ([0.0, 1e-9], 0.0, [(1, 0)], None),
        ([0.0, 1e-9], None, [(1, 0)], None),
        ([0.0, 5e-324], 0.0, [], "promptsBelowRewardStd"),
    ],
)
def test_prompts_are_selected_by_the_standard_deviation_of_their_scores(
    values: list[float], minimum: float | None, expected: list[tuple[int, int]], dropped: str | None
) -> None:
    paired = pairs(values, Pairing(min_reward_std=minimum))
    assert (indices(paired), paired.dropped) == (expected, dropped)


@given(scores, st.sampled_from(EVERY_STRATEGY), st.floats(0.0, 2.0))
def test_a_prompt_that_is_selected_gives_the_pairs_that_it_would_give_anyway(
    values: list[float], strategy: PairingStrategy, minimum: float
) -> None:
    paired = pairs(values, Pairing(strategy=strategy, min_reward_std=minimum))
    if statistics.pstdev(values) > minimum:
        assert paired == pairs(values, Pairing(strategy=strategy))
    else:
        assert paired.dropped == ("promptsTied" if len(set(values)) == 1 else "promptsBelowRewardStd")


def test_responses_that_are_left_out_do_not_spread_the_others() -> None:
    drop = Pairing(length_stopped=LengthStopped.DROP, min_reward_std=0.6)
    assert pairs([9.0, 1.0, 0.0], drop, [False, True, True]).dropped == "promptsBelowRewardStd"
    assert indices(pairs([9.0, 1.0, 0.0], drop, [True, True, True])) == [(0, 2)]


def test_defect_a_label_is_never_flipped() -> None:
    for seed in range(200):
        assert indices(pairs([0.0, 1.0], Pairing(strategy=PairingStrategy.BEST_RANDOM), seed=seed)) == [(1, 0)]


def test_defect_best_vs_random_reaches_every_index() -> None:
    values = [0.0, 1.0, 5.0, 2.0, 3.0, 4.0, -1.0, -2.0]
    strategy = Pairing(strategy=PairingStrategy.BEST_RANDOM)
    drawn = {make_pairs(scored(values), strategy, 0, f"prompt {i}").pairs[0].rejected.index for i in range(300)}
    assert drawn == set(range(8)) - {2}


def test_a_random_choice_is_the_prompts_own_and_repeats() -> None:
    strategy = Pairing(strategy=PairingStrategy.BEST_RANDOM)
    values = [float(i) for i in range(8)]
    completions = scored(values)
    assert make_pairs(completions, strategy, 0, "a") == make_pairs(completions[::-1], strategy, 0, "a")
    assert len({make_pairs(completions, strategy, seed, "a").pairs[0].rejected.index for seed in range(50)}) > 3


@pytest.mark.parametrize(
    ("what", "stopped", "expected", "dropped"),
    [
        (LengthStopped.KEEP, [False, True, True], [(0, 2)], None),
        (LengthStopped.REJECTED_ONLY, [False, True, True], [(1, 2)], None),
        (LengthStopped.REJECTED_ONLY, [True, True, False], [(0, 2)], None),
        (LengthStopped.REJECTED_ONLY, [False, False, False], [], "promptsLengthStopped"),
        (LengthStopped.DROP, [True, True, False], [(0, 1)], None),
        (LengthStopped.DROP, [True, False, False], [], "promptsLengthStopped"),
    ],
)
def test_defect_a_cut_response_can_be_kept_from_being_chosen(
    what: LengthStopped, stopped: list[bool], expected: list[tuple[int, int]], dropped: str | None
) -> None:
    """A reward model sees a cut response closed by the template, as if it had ended."""
    paired = pairs([3.0, 2.0, 1.0], Pairing(length_stopped=what), stopped)
    assert (indices(paired), paired.dropped) == (expected, dropped)


@given(scores, st.lists(st.booleans(), min_size=8, max_size=8), st.sampled_from(EVERY_STRATEGY))
def test_rejected_only_never_chooses_a_cut_response(values: list[float], stopped: list[bool], strategy: PairingStrategy) -> None:
    pairing = Pairing(strategy=strategy, length_stopped=LengthStopped.REJECTED_ONLY)
    assert all(pair.chosen.stopped for pair in pairs(values, pairing, stopped).pairs)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_nothing_is_compared_with_a_score_that_is_not_finite(score: float) -> None:
    with pytest.raises(ValueError, match="completion 1 has a score of"):
        scored([0.0, score])
