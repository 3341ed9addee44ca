"""What is wrong with a manifest: where, what stands there, what is wrong with it, what would be right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rlhf_api.reading.manifest import Loc

#: Longer values are cut in a message.
SHOWN_CHARACTERS = 60


class _Absent:
    """The value of a field that is not there; None would be null."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


class Category(StrEnum):
    """Invalid: no version takes it. NotAvailable: the API has it, and this version cannot do it yet."""

    INVALID = "Invalid"
    NOT_AVAILABLE = "NotAvailable"


@dataclass(frozen=True)
class Problem:
    """One problem. `str()` is the whole of it as one line for a person."""

    loc: Loc
    """Keys and list indexes from the root of the manifest."""
    wrong: str
    """What is wrong, as the end of a sentence that starts with the value."""
    right: str = ""
    """What would be right, and what to write."""
    value: Any = ABSENT
    """What stands there."""
    category: Category = Category.INVALID
    entry: str | None = None
    """The name of the nearest list entry around the place, where it has one."""
    depends: tuple[Loc, ...] = ()
    """Other places that it was concluded from: when one of them is wrong itself, this problem may be its consequence."""

    @property
    def path(self) -> str:
        """As kubectl writes paths: spec.gates[1].metric."""
        return format_path(self.loc)

    @property
    def shown_value(self) -> str:
        """The value as JSON, cut; empty where nothing stands there."""
        return "" if self.value is ABSENT else shown(self.value)

    def __str__(self) -> str:
        entry = f' (of "{self.entry}")' if self.entry else ""
        value = f" {self.shown_value}:" if self.shown_value else ""
        right = f"; {self.right}" if self.right else ""
        return f"{self.path or 'manifest'}{entry}:{value} {self.wrong}{right}"


Problems = Iterator[Problem]


def format_path(loc: Loc) -> str:
    """spec.gates[1].metric; a key with a dot or a slash in it stands in brackets and quotes."""
    path = ""
    for key in loc:
        if isinstance(key, int):
            path += f"[{key}]"
        elif key.replace("_", "a").isalnum():
            path += f".{key}" if path else key
        else:
            path += f"[{json.dumps(key, ensure_ascii=False)}]"
    return path


def shown(value: Any) -> str:
    """A value as JSON on one line, cut where it is long. Never raises: what is no JSON is shown as its type."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"<{type(value).__name__}>"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def value_at(raw: Any, loc: Loc) -> Any:
    """What stands at a place; ABSENT where nothing does."""
    for key in loc:
        if isinstance(raw, dict):
            raw = raw.get(key, ABSENT)
        elif isinstance(raw, list) and isinstance(key, int) and 0 <= key < len(raw):
            raw = raw[key]
        else:
            return ABSENT
    return raw


def entry_name(raw: Any, loc: Loc) -> str | None:
    """The name of the innermost list entry around a place."""
    for end in range(len(loc), 0, -1):
        if isinstance(loc[end - 1], int):
            name = value_at(raw, (*loc[:end], "name"))
            if isinstance(name, str) and name:
                return name
    return None
