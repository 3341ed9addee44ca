"""What a labeler is: (prompt, response) pairs in, scores out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rlhf_trainer.data.messages import Message, Tools
from rlhf_trainer.models.templates import TemplateRefusal
from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Characters of a response that an error shows.
_SHOWN = 80


class ScoreNotFinite(ConfigurationProblem):
    """Nothing can be compared with it, and another attempt would compute it again."""

    reason = "ScoreNotFinite"


@dataclass(frozen=True)
class Response:
    """A response to judge, as text: a labeler has its own tokenizer and template."""

    messages: Sequence[Message]
    text: str
    name: str = ""
    """For errors: `prompt 0f3a…, completion 2`."""
    tools: Tools = None
    """Of the prompt."""
    answer: str | None = None
    """The reference answer of the prompt's row, where the source of prompts names a column of them."""

    @property
    def shown(self) -> str:
        """Which one it is, and how it begins."""
        named = f"{self.name}, which begins " if self.name else "the response "
        return f"{named}{self.text[:_SHOWN]!r}"


class Labeler(Protocol):
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ...) -> list[float]:
        """A finite score for each response, more is better. `on_progress` hears how many are done."""


@runtime_checkable
class Comparer(Protocol):
    """A labeler of pairs: its scores are relative to the other responses of a prompt."""

    def compare(self, pairs: Sequence[tuple[Response, Response]], on_progress: Callable[[int], None] = ...) -> list[float]:
        """How probable it is that the first is better, for each pair of responses to one prompt; ½ for equal ones."""


@runtime_checkable
class Rehearsing(Protocol):
    """A labeler of which preflight cannot tell whether it answers."""

    def rehearse(self) -> None:
        """Raises ConfigurationProblem where it does not."""


@runtime_checkable
class Counting(Protocol):
    """A labeler that counts what became of its questions, by reason."""

    @property
    def counts(self) -> Mapping[str, int]:
        """So far, of this process."""


def counted(labeler: Labeler) -> Mapping[str, int]:
    """What it counts; of one that does not, nothing."""
    return labeler.counts if isinstance(labeler, Counting) else {}


def share_of_others(better: Mapping[tuple[str, str], float], text: str, times: Mapping[str, int]) -> float:
    """Of the other responses to a prompt, those that `text` beats: `better` holds each two texts in one order.

    Equal responses tie with one another, and to the last bit in what they are given. ½ for one that is alone.
    """
    others = sum(times.values()) - 1
    wins = (times[text] - 1) / 2
    for other, count in times.items():
        if other != text:
            wins += count * (better[text, other] if (text, other) in better else 1 - better[other, text])
    return wins / others if others else 0.5


def by_prompt(responses: Sequence[Response]) -> list[tuple[list[int], list[Response]]]:
    """The places of each prompt's responses, and they; in the order of the prompts' first ones."""
    groups: dict[str, list[int]] = {}
    for index, response in enumerate(responses):
        asked = [[dict(message) for message in response.messages], response.tools]
        groups.setdefault(json.dumps(asked, sort_keys=True), []).append(index)
    return [(group, [responses[index] for index in group]) for group in groups.values()]


@contextmanager
def askable(response: Response, instead: str) -> Iterator[None]:
    """What a template says of a response, as a ConfigurationProblem that names it, and says what to do `instead`."""
    try:
        yield
    except TemplateRefusal as refusal:
        raise ConfigurationProblem(f"The reward model cannot be asked about {response.shown}: {refusal} {instead}") from refusal


def ignore_progress(done: int) -> None:
    """For callers that show none."""
