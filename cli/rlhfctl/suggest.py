"""Did you mean: for commands, runs, gates, files and contexts, as validation has it for fields."""

from __future__ import annotations

from collections.abc import Iterable


def hint_for(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """`did you mean 'X'?` of the known word that `word` most likely stands for; empty where nothing is near."""
    # The API takes its time to load, and only a mistake is worth that.
    from rlhf_api.validation.suggest import nearest

    match = nearest(word, known)
    return (f"did you mean {match!r}?",) if match else ()
