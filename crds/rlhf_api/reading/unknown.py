"""What another version wrote and this one's models do not take: a word that is new, or a value that is none here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ValidationError

from rlhf_api.resource.status import UNKNOWN_FORMAT

_KEY = "[key]"
#: Of pydantic: what stands there is a name that is not on the list. Any other error is of a value.
_WORD_ERRORS = frozenset({"enum", "literal_error", "extra_forbidden", UNKNOWN_FORMAT})
_LONGEST_WORD = 64


@dataclass(frozen=True)
class Mismatch:
    """One place of an object."""

    path: str
    """`status.stages[0].name`"""
    what: str
    """What stands there, as the rest of a sentence: `is 'prepare'`."""
    word: bool
    """A name that another version may know; else a value that none is known to take."""

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


def mismatches(error: ValidationError, whole: str = "") -> tuple[Mismatch, ...]:
    """Unknown words first. `whole`: what the paths are of, where that is not the run."""
    found = [_mismatch(item, whole) for item in error.errors(include_url=False)]
    return tuple(sorted(found, key=lambda entry: not entry.word))


def mismatches_of(model: type[BaseModel], text: str | bytes, whole: str) -> tuple[Mismatch, ...]:
    """Of JSON; empty where `model` takes it, and where something else than an unknown word is wrong with it: then nobody knows
    that another version wrote it.
    """
    try:
        model.model_validate_json(text)
    except ValidationError as error:
        found = mismatches(error, whole)
        return found if all(entry.word for entry in found) else ()
    return ()


def in_words(found: Sequence[Mismatch]) -> str:
    """`status.phase is 'Preparing' (and 2 more), which this version (0.1.0) does not know`."""
    first, more = found[0], len(found) - 1
    others = f" (and {more} more)" if more else ""
    knows = "does not know" if first.word else "does not take"
    return f"{first}{others}, which this version ({version('rlhf-operator')}) {knows}"


def _mismatch(item: Any, whole: str) -> Mismatch:
    loc, kind, value = item["loc"], item["type"], item["input"]
    if kind == "extra_forbidden":
        return Mismatch(_path(whole, loc[:-1]), f"has a field {_shown(loc[-1])}", word=True)
    if loc and loc[-1] == _KEY:
        return Mismatch(_path(whole, loc[:-2]), f"has a key {_shown(value)}", word=kind in _WORD_ERRORS)
    if kind in _WORD_ERRORS:
        return Mismatch(_path(whole, loc), f"is {_shown(value)}", word=True)
    return Mismatch(_path(whole, loc), f"is no value of it ({item['msg']})", word=False)


def _path(whole: str, loc: Sequence[int | str]) -> str:
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return " of ".join(part for part in (path, whole) if part) or "the object"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}…"
