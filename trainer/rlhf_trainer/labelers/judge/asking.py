"""What a judge is asked with, and what it answers, whoever reads the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

#: Of an answer: a few sentences and the verdict.
ANSWER_TOKENS = 1024


@dataclass(frozen=True)
class Asked:
    """name: for errors, what the question is about. place: what its waits are seeded by."""

    text: str
    name: str
    place: str


@dataclass(frozen=True)
class Answer:
    """`text` is the judge's own words, and empty where it has none."""

    text: str
    cut: bool = False
    refused: bool = False


class ChatModel(Protocol):
    """Greedy, with at most ANSWER_TOKENS an answer."""

    @property
    def name(self) -> str:
        """For errors."""

    @property
    def requests(self) -> int:
        """Sent so far, tries that failed among them."""

    def require_budget(self, wanted: int) -> None:
        """Raises ConfigurationProblem where so many more requests are not allowed."""

    def ask(self, questions: Sequence[Asked]) -> Iterator[Answer]:
        """The answer to each, in order. Raises ConfigurationProblem where asking again would change nothing, else Transient."""
