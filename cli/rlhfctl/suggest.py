"""Did you mean: for commands, runs, fields and stages alike."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most likely stands for; None when nothing is near."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def hint_for(word: str, known: Iterable[str]) -> tuple[str, ...]:
    match = did_you_mean(word, known)
    return (f"did you mean {match!r}?",) if match else ()
