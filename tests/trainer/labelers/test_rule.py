"""Rules: which functions are taken, what they may answer, and what ours answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch

from rlhf_trainer.labelers.base import Response, ScoreNotFinite
from rlhf_trainer.labelers.rule import RuleFailed, RuleLabeler
from rlhf_trainer.quickstart.task import grade
from rlhf_trainer.runtime.errors import ConfigurationProblem

PROMPT = [{"role": "user", "content": "sort: b a"}]


@pytest.fixture
def rule(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], str]:
    """The entry point of a module in which `score` is this."""

    def named(function: object) -> str:
        module = ModuleType("rule_of_test")
        module.score = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:score"

    return named


def answer(entry_point: str) -> float:
    (score,) = RuleLabeler.load(entry_point).score([Response(PROMPT, "a b")])
    return score


@pytest.mark.parametrize(
    "entry_point", ["no_such_module:score", "rlhf_trainer.labelers.pairing:no_such_function", "rlhf_trainer:__doc__"]
)
def test_one_that_cannot_be_loaded_is_a_configuration_problem(entry_point: str) -> None:
    with pytest.raises(ConfigurationProblem, match="rule"):
        RuleLabeler.load(entry_point)


class Scorer:
    def __call__(self, messages: Any, response: str) -> float:
        return 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda messages, response: 1.0,
        lambda messages, response, weight=1.0: weight,
        lambda *arguments: float(len(arguments) - 1),
        partial(lambda weight, messages, response: weight, 1.0),
        Scorer(),
    ],
    ids=["plain", "default", "any", "partial", "object"],
)
def test_whatever_can_be_called_with_messages_and_response_is_a_rule(rule: Callable[[object], str], function: object) -> None:
    assert answer(rule(function)) == 1.0


@pytest.mark.parametrize(
    ("function", "takes"),
    [
        (lambda response: 1.0, r"\(response\)"),
        (lambda prompt, messages, response: 1.0, r"\(prompt, messages, response\)"),
        (lambda *, messages, response: 1.0, r"\(\*, messages, response\)"),
    ],
    ids=["one", "three", "by name"],
)
def test_one_with_another_signature_is_refused_with_it(rule: Callable[[object], str], function: object, takes: str) -> None:
    said = rf"rule_of_test:score takes {takes}, and is called with two .* Write def score\(messages, response\)\."
    with pytest.raises(ConfigurationProblem, match=said):
        RuleLabeler.load(rule(function))


@pytest.mark.parametrize(
    ("answered", "score"),
    [(1, 1.0), (True, 1.0), (False, 0.0), (Fraction(1, 2), 0.5), (numpy.float32(0.5), 0.5), (torch.tensor(0.5), 0.5)],
    ids=lambda value: type(value).__name__,
)
def test_a_number_of_any_kind_is_a_score_and_so_is_right_or_wrong(
    rule: Callable[[object], str], answered: object, score: float
) -> None:
    assert answer(rule(lambda messages, response: answered)) == score


@pytest.mark.parametrize(
    ("answered", "shown", "error"),
    [
        (None, "None", RuleFailed),
        ("0.5", "'0.5'", RuleFailed),
        ([0.5], r"\[0.5\]", RuleFailed),
        (1j, "1j", RuleFailed),
        (torch.ones(2), r"tensor\(\[1., 1.\]\)", RuleFailed),
        (Scorer(), "<.*Scorer object", RuleFailed),
        (float("inf"), "inf", ScoreNotFinite),
        (10**400, "inf", ScoreNotFinite),
    ],
    ids=["None", "text", "list", "complex", "tensor", "object", "infinite", "too large"],
)
def test_what_is_no_finite_number_is_shown(
    rule: Callable[[object], str], answered: object, shown: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"rule_of_test:score answered {shown}.* for the response 'a b'. Let it answer a finite number"):
        answer(rule(lambda messages, response: answered))


def test_one_that_ends_the_process_is_named_all_the_same(rule: Callable[[object], str]) -> None:
    def leaves(messages: Any, response: str) -> float:
        raise SystemExit("no such word")

    with pytest.raises(RuleFailed, match="raised SystemExit: no such word"):
        answer(rule(leaves))


@pytest.mark.parametrize(
    ("prompt", "response", "score"),
    [
        ("sort: pear apple fig", "apple fig pear", 1.0),
        ("sort: pear apple fig", "apple pear fig", 2 / 3),
        ("reverse: pear apple fig", "fig apple", 0.8),
        ("remove duplicates: fig pear fig", "fig pear fig", 0.8),
        ("sort: pear apple", "", 0.0),
    ],
)
def test_ours_is_frozen(prompt: str, response: str, score: float) -> None:
    """Its code is in no fingerprint: who makes it answer otherwise raises FORMAT_VERSION of label and evaluate."""
    assert grade([{"role": "user", "content": prompt}], response) == pytest.approx(score)


def with_default(messages: Sequence[Any], response: str, tools: Any = ()) -> float:
    return float(len(tools))


def by_keyword(messages: Sequence[Any], response: str, *, tools: Any = ()) -> float:
    return float(len(tools))


def without(messages: Sequence[Any], response: str, **others: Any) -> float:
    return float(len(others))


def of_another_name(tools: Sequence[Any], response: str) -> float:
    return float(len(tools)) - 1


@pytest.mark.parametrize(
    ("function", "scores"), [(with_default, [0, 2]), (by_keyword, [0, 2]), (without, [0, 0]), (of_another_name, [0, 0])]
)
def test_one_that_asks_for_the_tools_of_a_prompt_gets_them_where_there_are_any(
    rule: Callable[[object], str], function: object, scores: list[float]
) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "ab"]
    labeler = RuleLabeler.load(rule(function))
    assert labeler.score([Response(PROMPT, "a b"), Response(PROMPT, "a b", tools=tools)]) == scores
    labeler.try_on(PROMPT, "a b", tools)


def test_one_that_cannot_do_without_tools_is_refused(rule: Callable[[object], str]) -> None:
    def score(messages: Sequence[Any], response: str, tools: Any) -> float:
        return 1.0

    with pytest.raises(ConfigurationProblem, match="is called with two arguments"):
        RuleLabeler.load(rule(score))
