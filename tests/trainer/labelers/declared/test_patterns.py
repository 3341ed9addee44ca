"""Patterns: what is taken, what matches, and that no text makes a search last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_api.resource.labeler import Regex, RegexMode, Rule
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.declared.labeler import DeclaredLabeler
from rlhf_trainer.labelers.declared.patterns import LinearPattern
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: More than every response, and what a search that backtracks would not end on.
LONG = 1_000_000


def scores(regex: Regex, *texts: str) -> list[float]:
    return DeclaredLabeler.load(Rule(regex=regex)).score([Response([], text) for text in texts])


@pytest.mark.parametrize(
    ("regex", "right", "wrong"),
    [
        (Regex(pattern="b+"), ["abc", "b"], ["ac", ""]),
        (Regex(pattern="b+", mode=RegexMode.FULL_MATCH), ["b", "bbb"], ["ab", "ba", "b\n", ""]),
        (Regex(pattern="a|ab", mode=RegexMode.FULL_MATCH), ["a", "ab"], ["abb", "b"]),
        (Regex(pattern="b", negate=True), ["", "a"], ["b"]),
        (Regex(pattern="(?i)yes"), ["YES."], ["no"]),
        (Regex(pattern="a.b"), ["a-b"], ["a\nb"]),
        (Regex(pattern="(?s)a.b"), ["a\nb"], ["ab"]),
        (Regex(pattern="^b"), ["b"], ["a\nb"]),
        (Regex(pattern="(?m)^b$"), ["a\nb\nc"], ["ab"]),
        (Regex(pattern=r"\x00x"), ["a\0x"], ["x"]),
        (Regex(pattern=r"^\x{FFFD}$"), ["\ud800"], ["a", "\U0001f600"]),
        (Regex(pattern="^.$"), ["\U0001f600", "\ud83d\ude00"], ["ab"]),
    ],
)
def test_a_response_scores_by_whether_it_matches(regex: Regex, right: list[str], wrong: list[str]) -> None:
    assert scores(regex, *right, *wrong) == [1.0] * len(right) + [0.0] * len(wrong)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", r"'\(a' is no pattern: missing \)"),
        (r"(a)\1", "invalid escape sequence"),
        ("a(?=b)", "no look-around"),
        ("a(?<!b)", "no look-around"),
        ("a{2000}", "invalid repetition size"),
        (r"\Qa", "is no pattern"),
        ("a)(b", "is no pattern"),
    ],
)
def test_what_has_no_bound_or_no_meaning_is_refused_where_it_stands(pattern: str, said: str) -> None:
    with pytest.raises(ConfigurationProblem, match=said) as refused:
        DeclaredLabeler.load(Rule(regex=Regex(pattern=pattern)), "reward.rule")
    assert str(refused.value).startswith("reward.rule.regex.pattern '")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a*)*(a*)*b", "(a|aa)+b", "(.*)(.*)(.*)(.*)(.*)b", "(a?){90}b"])
def test_no_response_makes_a_pattern_search_for_ever(pattern: str) -> None:
    assert scores(Regex(pattern=pattern), "a" * LONG) == [0.0]
    assert scores(Regex(pattern=f"{pattern}$", mode=RegexMode.FULL_MATCH), "a" * LONG) == [0.0]
    assert LinearPattern(f"({pattern}|c)", "x").first_groups(["a" * (LONG // 100) + "c"]) == ["c"]


@given(st.text(st.characters(codec=None), max_size=40), st.sampled_from([r"\w", ".", "", r"\C", "[^a]", "(?s).*"]))
def test_every_text_has_a_score_and_its_negation_the_other(text: str, pattern: str) -> None:
    (one,) = scores(Regex(pattern=f"{pattern}|zz"), text)
    (other,) = scores(Regex(pattern=f"{pattern}|zz", negate=True), text)
    assert {one, other} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("pattern", "text", "held"),
    [
        ("#### (.+)", "a\n#### 42\n#### 43", "42"),
        ("(?s).*#### ([0-9]+)", "a\n#### 42\n#### 43 b", "43"),
        ("a(b)?", "a", ""),
        ("a(b)", "a", None),
        ("(?m)^=(.*)$", "x\n=1\n=2", "1"),
        (r"\A(a+)", "aab", "aa"),
        (r"([^\n]{0}\C)\C", "\u00e9", "\ufffd"),
        ("(a)(b)", "ab", "a"),
    ],
)
def test_the_first_group_of_the_first_match_is_what_it_holds(pattern: str, text: str, held: str | None) -> None:
    assert LinearPattern(pattern, "x").require_group().first_groups(["", text, "\n"]) == [None, held, None]


def test_a_pattern_without_a_group_holds_nothing() -> None:
    with pytest.raises(ConfigurationProblem, match=r"numericAnswer\.pattern 'a' has no group"):
        LinearPattern("a", "numericAnswer.pattern").require_group()


def test_more_responses_than_are_handed_over_at_a_time_keep_their_order() -> None:
    texts = ["a" if i % 3 else f"{i}" for i in range(1500)]
    assert scores(Regex(pattern="a"), *texts) == [float(text == "a") for text in texts]
    assert LinearPattern("([0-9]+)", "x").first_groups(texts) == [None if text == "a" else text for text in texts]
