"""Rule, where the manifest says itself what a right response is: 1 for one, 0 for any other. No function, no model, no clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from rlhf_api.resource.labeler import ExactMatch, JsonSchema, NumericAnswer, Regex, RegexMode, Rule
from rlhf_trainer.data.prompts import Prompt
from rlhf_trainer.data.rows import shown
from rlhf_trainer.labelers.base import Response, ignore_progress
from rlhf_trainer.runtime.errors import ConfigurationProblem

from .json_forms import JsonForm, last_code_block
from .numbers import last_number, number_of
from .patterns import LinearPattern

#: Responses that are judged between two words on progress.
_WINDOW = 1024


class _Judgement(Protocol):
    """What one kind of rule says."""

    def right(self, responses: Sequence[Response]) -> list[bool]:
        """Of each. Raises ConfigurationProblem for a reference answer that cannot be used."""

    def require_answer(self, answer: str | None) -> None:
        """Raises _NoAnswer for a reference answer that no response can be compared with."""


class _NoAnswer(Exception):  # noqa: N818 (it is no error of the program: it is what a row is)
    """The end of a sentence about a reference answer, and what to do."""


class DeclaredLabeler:
    def __init__(self, judgement: _Judgement) -> None:
        self._judgement = judgement

    @classmethod
    def load(cls, rule: Rule, field: str = "rule") -> DeclaredLabeler:
        """`field`: of the manifest, for messages. Raises ConfigurationProblem for a pattern or a schema that is none."""
        if rule.regex is not None:
            return cls(_Matches(rule.regex, f"{field}.regex"))
        if rule.exact_match is not None:
            return cls(_Equals(rule.exact_match))
        if rule.numeric_answer is not None:
            return cls(_EqualsNumber(rule.numeric_answer, f"{field}.numericAnswer"))
        if rule.json_schema is not None:
            return cls(_IsJson(rule.json_schema, f"{field}.jsonSchema"))
        raise ConfigurationProblem(f"{field} says of no response that it is right. Give entryPoint, or a member that does.")

    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ignore_progress) -> list[float]:
        """1.0 or 0.0. Raises ConfigurationProblem where the prompt has no reference answer, and one is asked for."""
        scores: list[float] = []
        for begin in range(0, len(responses), _WINDOW):
            scores += map(float, self._judgement.right(responses[begin : begin + _WINDOW]))
            on_progress(len(scores))
        return scores

    def require_answer(self, prompt: Prompt) -> None:
        """Of the prompt's row. Raises ConfigurationProblem with its place."""
        try:
            self._judgement.require_answer(prompt.answer)
        except _NoAnswer as problem:
            raise ConfigurationProblem(f"{prompt.where}: the reference answer {problem}") from problem


class _Matches:
    def __init__(self, regex: Regex, field: str) -> None:
        self._pattern = LinearPattern(regex.pattern, f"{field}.pattern")
        self._whole = regex.mode is RegexMode.FULL_MATCH
        self._negate = regex.negate

    def right(self, responses: Sequence[Response]) -> list[bool]:
        texts = [response.text for response in responses]
        found = self._pattern.matches_all_of(texts) if self._whole else self._pattern.found_in(texts)
        return [matches is not self._negate for matches in found]

    def require_answer(self, answer: str | None) -> None:
        """None is asked for."""


class _IsJson:
    def __init__(self, spec: JsonSchema, field: str) -> None:
        self._form = JsonForm(spec.inline, f"{field}.inline")
        self._code_block = spec.code_block

    def right(self, responses: Sequence[Response]) -> list[bool]:
        return [self._form.accepts(self._read(response.text)) for response in responses]

    def require_answer(self, answer: str | None) -> None:
        """None is asked for."""

    def _read(self, text: str) -> str:
        block = last_code_block(text) if self._code_block else None
        return text if block is None else block


class _Equals:
    def __init__(self, spec: ExactMatch) -> None:
        self._spec = spec

    def right(self, responses: Sequence[Response]) -> list[bool]:
        return [self._plain(response.text) == self._plain(_answer_of(response, self.require_answer)) for response in responses]

    def require_answer(self, answer: str | None) -> None:
        if answer is None or not self._plain(answer):
            held = "is missing" if answer is None else f"is {shown(answer)}"
            raise _NoAnswer(f"{held}. Write what a right response is, or leave the row out.")

    def _plain(self, text: str) -> str:
        text = text.strip() if self._spec.strip else text
        return text.casefold() if self._spec.ignore_case else text


class _EqualsNumber:
    def __init__(self, spec: NumericAnswer, field: str) -> None:
        self._pattern = spec.pattern and LinearPattern(spec.pattern, f"{field}.pattern").require_group()
        self._answer_pattern = spec.answer_pattern and LinearPattern(spec.answer_pattern, f"{field}.answerPattern").require_group()
        # As it is written: 0.7 as a float is a little less.
        self._tolerance = Fraction(repr(spec.tolerance))
        # A prompt has as many responses as are sampled, and one answer.
        self._number = lru_cache(maxsize=1024)(self._read)

    def right(self, responses: Sequence[Response]) -> list[bool]:
        texts = [response.text for response in responses]
        held = self._pattern.first_groups(texts) if self._pattern else texts
        return [
            self._is_near(None if text is None else last_number(text), _answer_of(response, self.require_answer))
            for text, response in zip(held, responses, strict=True)
        ]

    def require_answer(self, answer: str | None) -> None:
        self._number(answer)

    def _is_near(self, number: Fraction | None, answer: str) -> bool:
        return number is not None and abs(number - self._number(answer)) <= self._tolerance

    def _read(self, answer: str | None) -> Fraction:
        if answer is None:
            raise _NoAnswer("is missing. Write a number, or leave the row out.")
        held = self._answer_pattern.first_groups([answer])[0] if self._answer_pattern else answer
        if held is None:
            raise _NoAnswer(f"is {shown(answer)}, in which numericAnswer.answerPattern finds nothing. Write one where it does.")
        found = number_of(held)
        if found is None:
            raise _NoAnswer(
                f"is {shown(held)}, which is no number. Write one, or say in numericAnswer.answerPattern where it stands."
            )
        return found


def _answer_of(response: Response, require: Callable[[str | None], None]) -> str:
    try:
        require(response.answer)
    except _NoAnswer as problem:
        raise ConfigurationProblem(f"The reference answer of {response.name or 'a prompt'} {problem}") from problem
    return response.answer or ""
