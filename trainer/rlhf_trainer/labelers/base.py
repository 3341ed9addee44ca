"""What a labeler is: (prompt, response) pairs in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf_trainer.data.messages import Message, Tools
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

    @property
    def shown(self) -> str:
        """Which one it is, and how it begins."""
        named = f"{self.name}, which begins " if self.name else "the response "
        return f"{named}{self.text[:_SHOWN]!r}"


class Labeler(Protocol):
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ...) -> list[float]:
        """A finite score for each response, more is better. `on_progress` hears how many are done."""


def ignore_progress(done: int) -> None:
    """For callers that show none."""
