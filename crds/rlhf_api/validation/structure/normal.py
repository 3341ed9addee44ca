"""The first look at a manifest: what no object of Kubernetes can hold, and the same object as the API server would keep it."""

from __future__ import annotations

import math
from typing import Any

from rlhf_api.reading.manifest import MAX_DEPTH, MAX_VALUES, Loc
from rlhf_api.validation.problem import ABSENT, Problem


def normalise(raw: Any) -> tuple[Any, list[Problem]]:
    """The value with nothing in it but JSON: null is absent, a whole float is an integer; what cannot stay is out, with a problem.

    As in the API server: `key: null` of an object is dropped before defaults are filled in.
    """
    return _Normaliser().run(raw)


class _Normaliser:
    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._values = 0

    def run(self, raw: Any) -> tuple[Any, list[Problem]]:
        value = self._value(raw, ())
        return value, self._problems

    def _value(self, value: Any, loc: Loc) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or len(loc) > MAX_DEPTH:
            return self._refuse(loc, "too much: deeper or larger than any manifest", "make it smaller")
        if isinstance(value, dict):
            return self._object(value, loc)
        if isinstance(value, list | tuple):
            items = [self._value(item, (*loc, index)) for index, item in enumerate(value)]
            return [None if item is ABSENT else item for item in items]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**63 else self._refuse(loc, "too large a number", "Kubernetes keeps 64 bits")
        if isinstance(value, float):
            if not math.isfinite(value):
                return self._refuse(loc, f"{value} is no number that JSON can carry", "write a number")
            return int(value) if value.is_integer() and abs(value) < 2**63 else float(value)
        if isinstance(value, str):
            return str(value) if _is_text(value) else self._refuse(loc, "text with half a character in it", "write it as UTF-8")
        return self._refuse(
            loc, f"a {type(value).__name__}, which no manifest can hold", "write text, a number, a list or an object"
        )

    def _object(self, value: dict[Any, Any], loc: Loc) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str) or not _is_text(key):
                self._refuse(loc, f"has a key that is no text: {ascii(key)[:40]}", "put the key in quotes")
                continue
            normal = self._value(item, (*loc, key))
            if normal is not None and normal is not ABSENT:
                kept[str(key)] = normal
        return kept

    def _refuse(self, loc: Loc, wrong: str, right: str) -> Any:
        # One problem for one place, and not a hundred thousand of them.
        if len(self._problems) < 100:
            self._problems.append(Problem(loc, wrong, right))
        return ABSENT


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
