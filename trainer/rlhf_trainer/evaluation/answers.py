"""Answers of an iterate, as the evaluation artifact holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlhf_trainer.runtime.narrow import present


@dataclass(frozen=True)
class Answer:
    """A row of the evaluation artifact."""

    set: str
    decoding: str
    prompt_id: str
    messages: Sequence[Mapping[str, str]]
    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    text: str
    finish_reason: str
    judge_score: float | None = None
    reward_score: float | None = None
    tools: str | None = None
    """JSON text; a column where prompts of the run have any."""
    reference: str | None = None
    """The reference answer of the prompt's row; no column, for only the stage that asks compares with it."""


def of_validation(answers: Sequence[Answer]) -> list[Answer]:
    """Those that selection and gates look at: sampled, of validation prompts."""
    return [a for a in answers if a.set == "validation" and a.decoding == "sampled"]


def in_order_of(own: Sequence[Answer], others: Sequence[Answer]) -> list[Answer]:
    """The validation answers of `others`, prompt by prompt as `own` has them."""
    by_prompt = {a.prompt_id: a for a in of_validation(others)}
    return [by_prompt[a.prompt_id] for a in own]


#: How probable it is that the first is better, for each pair of answers to one question: of a judge that compares.
Compare = Callable[[Sequence[tuple[Answer, Answer]]], Sequence[float]]


def to_questions_of(answers: Sequence[Answer], others: Sequence[Answer]) -> list[Answer]:
    """The one of `others` to the same question, sampled alike, for each answer."""
    found = {(a.set, a.decoding, a.prompt_id): a for a in others}
    return [found[a.set, a.decoding, a.prompt_id] for a in answers]


def judge_score_of(answer: Answer) -> float:
    """Raises TypeError where the judge has not been asked."""
    return present(answer.judge_score, "the judge's score")
