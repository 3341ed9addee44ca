"""Patterns in RE2's syntax, which Arrow brings: a search takes time linear in the text, whatever pattern and text are.

Python's `re` and `regex` may backtrack for longer than a run lasts on a response that nobody foresaw, and a time limit would make a
score depend on the machine (ADR 0032).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Texts that are handed over at a time.
_WINDOW = 256


class LinearPattern:
    """field: of the manifest, for messages."""

    def __init__(self, pattern: str, field: str) -> None:
        """Raises ConfigurationProblem for what RE2 does not take."""
        self._pattern = pattern
        self._field = field
        self._try(pattern)
        # By itself a pattern may be whole and not so within a group: \Qabc quotes what follows it.
        self._try(rf"\A(?:{pattern})\z")

    def require_group(self) -> LinearPattern:
        """Raises ConfigurationProblem for a pattern without a group."""
        try:
            self._first_groups([""])
        except pa.ArrowInvalid as problem:
            raise ConfigurationProblem(
                f"{self._field} {self._pattern!r} has no group. Put what holds the number into parentheses, as in #### (.+)."
            ) from problem
        return self

    def found_in(self, texts: Sequence[str]) -> list[bool]:
        """Whether it matches anywhere, of each."""
        return [bool(found) for part in _windows(texts) for found in pc.match_substring_regex(part, self._pattern).to_pylist()]

    def matches_all_of(self, texts: Sequence[str]) -> list[bool]:
        """Whether it matches the whole, of each."""
        whole = rf"\A(?:{self._pattern})\z"
        return [bool(found) for part in _windows(texts) for found in pc.match_substring_regex(part, whole).to_pylist()]

    def first_groups(self, texts: Sequence[str]) -> list[str | None]:
        """What the first group of the first match holds, of each; None where nothing matches."""
        found = self.found_in(texts)
        groups = iter(self._first_groups([text for text, here in zip(texts, found, strict=True) if here]))
        return [next(groups) if here else None for here in found]

    def _first_groups(self, texts: Sequence[str]) -> list[str]:
        # Arrow gives groups by name alone. In the place of the whole text it puts any of them.
        whole = rf"\A\C*?(?:{self._pattern})\C*\z"
        return [
            # \C takes a byte, so that a group may end within a character.
            cast("bytes", group).decode(errors="replace")
            for part in _windows(texts)
            for group in pc.replace_substring_regex(part, whole, r"\1").cast(pa.large_binary()).to_pylist()
        ]

    def _try(self, pattern: str) -> None:
        try:
            pc.match_substring_regex(pa.array([""]), _unicode(pattern))
        except pa.ArrowInvalid as problem:
            raise ConfigurationProblem(
                f"{self._field} {self._pattern!r} is no pattern: {_told(str(problem))}. Write it in RE2's syntax, which has no "
                "look-around and no backreferences (https://github.com/google/re2/wiki/Syntax)."
            ) from problem


def _told(problem: str) -> str:
    return problem.removeprefix("Invalid regular expression: ")


def _windows(texts: Sequence[str]) -> Iterator[pa.Array]:
    for begin in range(0, len(texts), _WINDOW):
        yield pa.array([_unicode(text) for text in texts[begin : begin + _WINDOW]], pa.large_string())


def _unicode(text: str) -> str:
    """Half of a character, which no encoding has, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
