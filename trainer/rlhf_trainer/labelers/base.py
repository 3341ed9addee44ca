"""What a labeler is: (prompt, response) pairs in, scores out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Response:
    """A response to judge, as text: a labeler has its own tokenizer and template."""

    messages: Sequence[Mapping[str, str]]
    text: str


class Labeler(Protocol):
    def score(self, responses: Sequence[Response], on_progress: Callable[[int], None] = ...) -> list[float]:
        """A finite score for each response, more is better. `on_progress` hears how many are done."""


def ignore_progress(done: int) -> None:
    """For callers that show none."""
