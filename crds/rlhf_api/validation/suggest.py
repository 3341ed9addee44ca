"""What a person may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a misspelt word most likely stands for: case, - and _ do not count."""
    folded: dict[str, str] = {}
    for choice in choices:
        folded.setdefault(fold(choice), choice)
    if fold(word) in folded:
        return folded[fold(word)]
    matches = get_close_matches(fold(word)[:128], folded, n=1, cutoff=0.7)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`did you mean X?`, or nothing."""
    match = nearest(word, choices)
    return f"did you mean {match}?" if match else ""


def fold(word: str) -> str:
    """What two spellings of one name have in common."""
    return word.lower().replace("_", "").replace("-", "")
