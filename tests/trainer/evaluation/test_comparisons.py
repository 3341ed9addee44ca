"""How a scorer of pairs is measured: ties, whole prompts, calibration, and what length alone would say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhf_trainer.evaluation.comparisons import Comparison, comparison_figures
from rlhf_trainer.evaluation.stats import share_with_interval


def pair(chosen: float, rejected: float, prompt: int = 0, lengths: tuple[int, int] = (10, 10), subset: str = "a") -> Comparison:
    return Comparison(prompt, chosen, rejected, *lengths, subset)


def test_a_tie_counts_one_half() -> None:
    figures = comparison_figures([pair(1, 0), pair(0, 1), pair(2, 2), pair(3, 1)])
    assert figures.accuracy.value == 2.5 / 4


def test_pairs_of_a_prompt_are_resampled_together() -> None:
    """A hundred pairs of two prompts are two observations, and the interval says so."""
    outcomes = [1.0] * 50 + [0.0] * 50
    clustered = share_with_interval(outcomes, [0] * 50 + [1] * 50)
    apart = share_with_interval(outcomes, list(range(100)))
    assert clustered.value == apart.value == 0.5
    assert (clustered.lower, clustered.upper) == (0.0, 1.0)
    assert apart.lower is not None
    assert apart.upper is not None
    assert 0.39 <= apart.lower < apart.upper <= 0.61


def test_an_accuracy_that_length_alone_would_have_is_seen() -> None:
    """allenai/reward-bench issue 267: of some subsets the chosen response is always the longer one."""
    long = [pair(20, 10, n, (20, 10), "easy") for n in range(10)]
    short = [pair(10, 20, n, (10, 20), "hard") for n in range(10)]
    figures = comparison_figures(long + short)
    assert {part.name: (part.accuracy.value, part.by_length) for part in figures.subsets} == {
        "easy": (1.0, 1.0),
        "hard": (0.0, 0.0),
    }
    assert {part.name: part.accuracy.value for part in figures.lengths} == {"ChosenLonger": 1.0, "ChosenShorter": 0.0}
    assert figures.accuracy.value == figures.by_length == 0.5


@pytest.mark.parametrize(
    ("lengths", "name"),
    [((100, 90), "AboutEqual"), ((90, 100), "AboutEqual"), ((100, 89), "ChosenLonger"), ((89, 100), "ChosenShorter")],
)
def test_lengths_within_a_tenth_are_about_equal(lengths: tuple[int, int], name: str) -> None:
    assert [part.name for part in comparison_figures([pair(1, 0, 0, lengths)]).lengths] == [name]


def test_the_mean_of_subsets_weighs_each_alike() -> None:
    pairs = [pair(1, 0, n, subset="large") for n in range(9)] + [pair(0, 1, 9, subset="small")]
    figures = comparison_figures(pairs)
    assert figures.accuracy.value == 0.9
    assert figures.mean_of_subsets == 0.5


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    margin = math.log(0.75 / 0.25)
    sure = comparison_figures([pair(margin, 0, n) for n in range(75)] + [pair(0, margin, n) for n in range(75, 100)])
    assert sure.expected_calibration_error == pytest.approx(0.0, abs=1e-9)
    [upper] = [found for found in sure.calibration if found.lower >= 0.5 and found.predictions]
    assert (upper.lower, upper.predictions) == (0.7, 100)
    assert (upper.predicted, upper.observed) == pytest.approx((0.75, 0.75))


def test_a_model_that_is_too_sure_is_told_by_how_much() -> None:
    figures = comparison_figures([pair(1000, 0, n) for n in range(3)] + [pair(0, 1000, 3)])
    assert figures.expected_calibration_error == pytest.approx(0.25)
    assert len(figures.calibration) == 10
    assert [found.predictions for found in figures.calibration] == [4, *[0] * 8, 4]


def test_scores_that_are_all_equal_are_calibrated_and_no_better_than_chance() -> None:
    figures = comparison_figures([pair(1, 1, n) for n in range(4)])
    assert figures.accuracy.value == 0.5
    assert figures.expected_calibration_error == 0.0


def test_its_wire_form_is_that_of_manifests() -> None:
    wire = comparison_figures([pair(1, 0)]).to_wire()
    assert {"meanOfSubsets", "expectedCalibrationError", "byLength", "calibration", "lengths", "subsets"} <= wire.keys()


def test_no_pair_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no pair"):
        comparison_figures([])


def test_intervals_hold_one_resample_at_a_time() -> None:
    """2,000 resamples of 200,000 prompts at once would be 3.2 GB."""
    import tracemalloc

    outcomes = np.zeros(20_000).tolist()
    tracemalloc.start()
    share_with_interval(outcomes, range(20_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20
