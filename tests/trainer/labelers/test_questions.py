"""Which pairs people are asked about."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rlhf_trainer.labelers.people.questions import Question, draw_questions, pair_id

TEXTS = st.dictionaries(st.integers(0, 9), st.sampled_from(["yes", "no", "perhaps", ""]), max_size=8)


@given(TEXTS, st.integers(1, 4), st.integers(0, 3))
def test_equal_responses_are_never_a_pair_and_no_two_texts_are_asked_about_twice(
    texts: dict[int, str], pairs: int, seed: int
) -> None:
    drawn = draw_questions(texts, pairs, seed, 1, "p")
    different = len(set(texts.values()))
    assert len(drawn) == min(pairs, different * (different - 1) // 2)
    shown = [frozenset((texts[question.a], texts[question.b])) for question in drawn]
    assert all(len(pair) == 2 for pair in shown)
    assert len(set(shown)) == len(shown)


@given(TEXTS, st.integers(1, 4))
def test_the_order_of_the_samples_does_not_matter(texts: dict[int, str], pairs: int) -> None:
    turned = dict(reversed(texts.items()))
    assert draw_questions(texts, pairs, 0, 1, "p") == draw_questions(turned, pairs, 0, 1, "p")


def test_each_iteration_prompt_and_seed_draws_for_itself_and_again_the_same() -> None:
    texts = {index: f"response {index}" for index in range(8)}
    draws = [draw_questions(texts, 1, *key)[0] for key in ((0, 1, "p"), (1, 1, "p"), (0, 2, "p"), (0, 1, "q"), (0, 1, "p"))]
    assert len(set(draws)) == 4
    assert draws[0] == draws[-1]


def test_which_response_is_shown_first_is_drawn_too() -> None:
    drawn = [draw_questions({0: "yes", 1: "no"}, 1, 0, 1, f"p{number}")[0] for number in range(400)]
    counts = Counter(drawn)
    assert counts.keys() == {Question(0, 1), Question(1, 0)}
    assert 140 < counts[Question(0, 1)] < 260


def test_a_question_has_an_id_of_its_own_that_stays() -> None:
    asked = "a" * 64
    ids = {pair_id(asked, prompt, Question(a, b)) for prompt in ("p", "q") for a, b in ((0, 1), (1, 0), (0, 2))}
    assert len(ids | {pair_id("b" * 64, "p", Question(0, 1))}) == 7
    assert pair_id(asked, "p", Question(0, 1)) == "7ad52aeec1574653922757e567949ed5"
