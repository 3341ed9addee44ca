"""What people answer: verdicts, and how far annotators agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.conventions.annotations import Annotator, Choice, Tally, annotations_key, krippendorff_alpha, tally, verdict

A, B, TIE = Choice


@pytest.mark.parametrize(
    ("choices", "expected"),
    [([A], A), ([B, B, A], B), ([A, B], TIE), ([TIE, A], TIE), ([TIE, TIE, A], TIE), ([A, A, B, B, TIE], TIE), ([A, A, B, TIE], A)],
    ids=str,
)
def test_a_verdict_is_what_was_chosen_more_often_than_anything_else(choices: list[Choice], expected: Choice) -> None:
    assert verdict(choices) is expected


@given(st.permutations([A, A, B, TIE]))
def test_the_order_of_answers_does_not_matter(choices: list[Choice]) -> None:
    assert verdict(choices) is A


def test_alpha_is_that_of_the_published_example() -> None:
    """K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers, twelve units, some missing."""
    observers = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[value for value in unit if value != "."] for unit in zip(*observers, strict=True)]
    alpha = krippendorff_alpha(units)
    assert alpha is not None
    assert round(alpha, 3) == 0.743


@pytest.mark.parametrize("units", [[], [[A], [B]], [[A, A], [A, A, A]]], ids=str)
def test_where_nothing_could_have_been_otherwise_there_is_no_alpha(units: list[list[Choice]]) -> None:
    assert krippendorff_alpha(units) is None


def test_perfect_agreement_is_one_and_steady_contradiction_is_less_than_chance() -> None:
    assert krippendorff_alpha([[A, A], [B, B]]) == 1.0
    contradicted = krippendorff_alpha([[A, B], [B, A]])
    assert contradicted is not None
    assert contradicted < 0


def test_answers_lie_under_their_digest() -> None:
    assert annotations_key("a" * 64) == f"annotations/{'a' * 64}.parquet"


def test_a_tally_counts_pairs_with_enough_answers_and_how_often_each_annotator_is_the_verdict() -> None:
    answers = [
        ("p", "ann", Choice.A), ("p", "bob", Choice.A), ("p", "eve", Choice.B),
        ("q", "ann", Choice.A), ("q", "bob", Choice.B),
        ("r", "eve", Choice.TIE),
    ]  # fmt: skip
    found = tally(answers, 2)
    assert (found.answered, found.tied, found.answers) == (2, 1, 6)
    assert found.annotators == (Annotator("ann", 2, 1), Annotator("bob", 2, 1), Annotator("eve", 2, 1))
    assert found.alpha == krippendorff_alpha([[choice for pair, _, choice in answers if pair == name] for name in "pqr"])


def test_nobodys_answers_are_a_tally_too() -> None:
    assert tally([], 1) == Tally(0, 0, 0, (), None)
