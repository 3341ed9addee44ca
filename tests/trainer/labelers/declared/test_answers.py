"""Responses against the reference answer of their prompt's row."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_api.resource.labeler import Rule
from rlhf_trainer.data.prompts import Prompt
from rlhf_trainer.labelers.base import Response
from rlhf_trainer.labelers.declared.labeler import DeclaredLabeler
from rlhf_trainer.runtime.errors import ConfigurationProblem


def rule(**members: Any) -> DeclaredLabeler:
    return DeclaredLabeler.load(Rule.model_validate(members), "reward.rule")


def score(labeler: DeclaredLabeler, text: str, answer: str | None) -> float:
    (found,) = labeler.score([Response([], text, "prompt a, completion 0", answer=answer)])
    return found


@pytest.mark.parametrize(
    ("options", "text", "answer", "right"),
    [
        ({}, "Paris", "Paris", True),
        ({}, " Paris\n", "Paris ", True),
        ({}, "paris", "Paris", False),
        ({}, "Paris.", "Paris", False),
        ({}, "", "Paris", False),
        ({"strip": False}, "Paris\n", "Paris", False),
        ({"strip": False}, "\n", "\n", True),
        ({"ignoreCase": True}, "STRASSE", "Stra\u00dfe", True),
        ({}, "a\0\ud800", "a\0\ud800", True),
    ],
)
def test_an_exact_match(options: dict[str, bool], text: str, answer: str, right: bool) -> None:
    assert score(rule(exactMatch=options), text, answer) == float(right)


@pytest.mark.parametrize(
    ("options", "text", "answer", "right"),
    [
        ({}, "17 + 25 = 42", "42", True),
        ({}, "It is 1,234.50 in all.", "1234.5", True),
        ({}, "42, not 43", "42", False),
        ({}, "", "42", False),
        ({}, "none", "0", False),
        ({}, "50%", "0.5", True),
        ({}, "50%", "50", False),
        ({}, "0.70", "0", False),
        ({"tolerance": 0.7}, "0.70", "0", True),
        ({"tolerance": 0.7}, "0.7000000001", "0", False),
        ({"tolerance": 1e-9}, "0.3333333333", "1/3", True),
        ({"pattern": "#### (.+)"}, "1\n#### 42 apples\n7", "42", True),
        ({"pattern": "#### (.+)"}, "42", "42", False),
        ({"pattern": r"(?s).*\\boxed\{(.*?)\}"}, r"\boxed{1} so \boxed{\$42}.", "42", True),
        ({"pattern": r"([0-9]+)\s*%"}, "50 %", "50", True),
        ({"answerPattern": "#### (.+)"}, "it is 42", "6 * 7 = 42\n#### 42", True),
    ],
)
def test_a_number_of_the_response(options: dict[str, Any], text: str, answer: str, right: bool) -> None:
    assert score(rule(numericAnswer=options), text, answer) == float(right)


@pytest.mark.parametrize(
    ("members", "answer", "said"),
    [
        ({"exactMatch": {}}, None, r"is missing\. Write what a right response is"),
        ({"exactMatch": {}}, " \n", r"is ' \\n'\. Write what a right response is"),
        ({"numericAnswer": {}}, None, r"is missing\. Write a number"),
        (
            {"numericAnswer": {}},
            "forty-two",
            "is 'forty-two', which is no number. Write one, or say in numericAnswer.answerPattern",
        ),
        ({"numericAnswer": {}}, "6 * 7\n#### 42", ".* which is no number"),
        ({"numericAnswer": {"answerPattern": "#### (.+)"}}, "42", "is '42', in which numericAnswer.answerPattern finds nothing"),
        ({"numericAnswer": {"answerPattern": "#### (.+)"}}, "#### x", "is 'x', which is no number"),
    ],
)
def test_a_reference_answer_that_nothing_can_be_compared_with_is_named_with_its_place(
    members: dict[str, Any], answer: str | None, said: str
) -> None:
    with pytest.raises(ConfigurationProblem, match=f"^p.jsonl: row 3: the reference answer {said}"):
        rule(**members).require_answer(Prompt("a", (), "p.jsonl: row 3", answer=answer))
    with pytest.raises(ConfigurationProblem, match=f"^The reference answer of prompt a, completion 0 {said}"):
        score(rule(**members), "42", answer)


def test_patterns_of_numbers_need_a_group_and_are_named_by_their_field() -> None:
    for field in ("pattern", "answerPattern"):
        with pytest.raises(ConfigurationProblem, match=rf"^reward\.rule\.numericAnswer\.{field} '####' has no group"):
            rule(numericAnswer={field: "####"})


def test_long_responses_are_scored_and_progress_is_told() -> None:
    told: list[int] = []
    responses = [Response([], "1 " * 500_000 + "42", answer="42"), *(Response([], str(i), answer="42") for i in range(1500))]
    assert sum(rule(numericAnswer={}).score(responses, told.append)) == 2.0
    assert told == [1024, 1501]
