"""Figures and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_trainer.evaluation.metrics import distinct_2
from rlhf_trainer.evaluation.stats import (
    difference_with_interval,
    length_adjusted_win_rate,
    mean_with_interval,
    ratio_with_interval,
    wins,
)

RNG = np.random.default_rng


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    covered = 0
    for trial in range(200):
        sample = mean_with_interval(RNG(trial).exponential(1.0, 60).tolist())
        assert sample.lower is not None
        assert sample.upper is not None
        covered += sample.lower <= 1.0 <= sample.upper
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_data_give_equal_bounds() -> None:
    values = RNG(0).normal(size=50).tolist()
    assert mean_with_interval(values) == mean_with_interval(values)


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios() -> None:
    figure = ratio_with_interval([1.0, 30.0], [1.0, 10.0])
    assert figure.value == pytest.approx(31 / 11, rel=1e-5)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    hard = RNG(0).normal(size=300)
    figure = difference_with_interval((hard + 0.1).tolist(), hard.tolist())
    assert figure.value == pytest.approx(0.1, abs=1e-6)
    assert figure.upper == pytest.approx(0.1, abs=1e-6)


def test_a_tie_is_half_a_win() -> None:
    assert wins([1.0, 0.0, 0.5], [0.0, 1.0, 0.5]) == [1.0, 0.0, 0.5]


def test_the_length_adjusted_rate_is_the_plain_one_where_length_is_irrelevant() -> None:
    rng = RNG(1)
    outcomes = (rng.random(600) < 0.62).astype(float).tolist()
    ours, theirs = rng.integers(5, 50, 600).tolist(), rng.integers(5, 50, 600).tolist()
    plain, adjusted = mean_with_interval(outcomes), length_adjusted_win_rate(outcomes, ours, theirs)
    assert adjusted.value == pytest.approx(plain.value, abs=0.02)
    assert adjusted.upper == pytest.approx(plain.upper or 0.0, abs=0.03)


def test_defect_a_win_by_length_alone_is_told_apart_from_a_better_answer() -> None:
    """Responses twice as long, to a judge that only looks at length with some noise: at equal lengths it would be a coin."""
    rng = RNG(2)
    theirs = rng.normal(50, 10, 800)
    ours = theirs + rng.normal(8, 12, 800)
    outcomes = (rng.random(800) < 1 / (1 + np.exp(-(ours - theirs) / 6))).astype(float)
    plain = mean_with_interval(outcomes.tolist())
    adjusted = length_adjusted_win_rate(outcomes.tolist(), ours.tolist(), theirs.tolist())
    assert plain.value > 0.65
    assert adjusted.value == pytest.approx(0.5, abs=0.05)
    assert adjusted.lower is not None
    assert adjusted.upper is not None
    assert adjusted.lower < 0.5 < adjusted.upper


@pytest.mark.parametrize("outcomes", [[1.0] * 20, [0.5] * 20, [0.0, 1.0] * 10])
def test_equal_lengths_leave_the_plain_rate(outcomes: list[float]) -> None:
    assert length_adjusted_win_rate(outcomes, [7.0] * 20, [7.0] * 20) == mean_with_interval(outcomes)


def test_distinct_2_counts_bigrams_over_all_responses() -> None:
    assert distinct_2([[1, 2, 3], [1, 2]]) == pytest.approx(2 / 3)
    assert distinct_2([[1], []]) == 0.0
