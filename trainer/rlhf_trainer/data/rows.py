"""Rows that cannot be used: counted by reason, with the first of each, until there are too many of them."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf_api.resource.data import Source
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.logs import log

Row = Mapping[str, Any]
#: Characters of a value that a message shows.
_SHOWN = 80
_HALF = re.compile("[\ud800-\udfff]")
#: Reasons that a message tells, the most frequent first.
_REASONS_TOLD = 4


class Unusable(Exception):  # noqa: N818 (it is no error of the program: it is what a row is)
    """A row that is left out. reason: a key of counts; words: what stands there, and what to write."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words


class FileRow(dict[str, Any]):
    """A row, and where it stands: the name of its file, and its number there, from 1; of JSON lines, the line.

    nulls: fields of null were left out of its tools.
    """

    __slots__ = ("file", "nulls", "number")

    def __init__(self, row: Row, file: str, number: int, nulls: bool = False) -> None:
        super().__init__(row)
        self.file = file
        self.number = number
        self.nulls = nulls


class KeyTwice(ValueError):  # noqa: N818 (it is no error of the program, either)
    """A JSON object that has two values of one name: readers differ in which they take."""


def json_of(text: str | bytes) -> Any:
    """Raises ValueError for what is no JSON, KeyTwice among it; RecursionError for what is nested deeper than can be read."""
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(name, _), *_] = Counter(name for name, _ in pairs).most_common(1)
        raise KeyTwice(f"an object has the key {shown(name)} twice")
    return found


@dataclass(frozen=True)
class Unparsable:
    """Stands where a row would: the file has something there that is no row. file, number: as of a FileRow."""

    words: str
    file: str = ""
    number: int = 0


@dataclass
class _Reason:
    """row, place: of the first one."""

    row: int
    place: str
    words: str
    rows: int = 0


@dataclass
class Tally:
    """What became of the rows of one source: used, or left out by reason. Rows count from 1, through all files of the source."""

    source: Source
    layout: str = ""
    rows: int = 0
    unread: set[str] = field(default_factory=set)
    """Names of what its messages hold and nobody reads."""
    columns: set[str] = field(default_factory=set)
    """Those that hold anything in any row."""
    columns_read: frozenset[str] = frozenset()
    drawn: int | None = None
    """Rows that can be read and that a mixture draws; None: all are."""
    refused: int = 0
    """Of those: left out when they were rendered."""
    nulls: int = 0
    """Rows that had fields of null in their tools, which Arrow gives to whatever lacks a field: they are taken for absent."""
    _reasons: dict[str, _Reason] = field(default_factory=dict)
    _stretches: list[tuple[int, str, int]] = field(default_factory=list)
    """A row, its file and its number there, from which on both count alike: of the rows that were seen here."""

    def see(self, row: int, content: Row | Unparsable) -> None:
        """Rows come in order. Keeps where it stands and which columns it has."""
        if isinstance(content, Unparsable | FileRow) and content.file:
            first, last, begin = self._stretches[-1] if self._stretches else (0, "", 0)
            if (last, begin + row - first) != (content.file, content.number):
                self._stretches.append((row, content.file, content.number))
        self.nulls += isinstance(content, FileRow) and content.nulls
        if isinstance(content, Mapping):
            self.columns.update(name for name, value in content.items() if value is not None)

    def place(self, row: int) -> str:
        """For messages behind the uri of the source: `row 3 of b.jsonl`, or `row 3` where there is one file. Of a row seen here."""
        if not self._stretches:
            return f"row {row}"
        first, file, number = self._stretches[max(0, bisect_right(self._stretches, row, key=lambda stretch: stretch[0]) - 1)]
        of_file = "" if self.source.uri.endswith(f"/{file}") else f" of {file}"
        return f"row {number + row - first}{of_file}"

    @property
    def columns_not_read(self) -> list[str]:
        return sorted(self.columns - self.columns_read)

    def leave_out(self, row: int, problem: Unusable) -> None:
        """Rows may come in any order: the first one is told."""
        found = self._reasons.get(problem.reason)
        if found is None or row < found.row:
            rows = 0 if found is None else found.rows
            found = self._reasons[problem.reason] = _Reason(row, self.place(row), problem.words, rows)
        found.rows += 1

    def refuse(self, row: int, problem: Unusable) -> None:
        """One that can be read, and not rendered."""
        self.refused += 1
        self.leave_out(row, problem)

    def add(self, other: Tally) -> None:
        """What became of rows of the same source, behind those of this one."""
        self.layout, self.columns_read = other.layout, other.columns_read
        self.columns |= other.columns
        self.rows += other.rows
        self.refused += other.refused
        self.drawn = None if other.drawn is None else (self.drawn or 0) + other.drawn
        self.nulls += other.nulls
        self.unread |= other.unread
        for name, theirs in other._reasons.items():
            found = self._reasons.setdefault(name, _Reason(theirs.row, theirs.place, theirs.words))
            found.rows += theirs.rows

    @property
    def reasons(self) -> dict[str, int]:
        return {name: reason.rows for name, reason in self._reasons.items()}

    @property
    def unusable(self) -> int:
        return sum(reason.rows for reason in self._reasons.values())

    @property
    def used(self) -> int:
        return self.rows - self.unusable

    def counts(self) -> dict[str, int]:
        """`layout/messages: 30000`, `unusable/nullContent: 2`."""
        named = {f"unusable/{name}": rows for name, rows in self.reasons.items()}
        named |= {"columnsNotRead": len(self.columns_not_read)} if self.columns_not_read else {}
        return named | ({f"layout/{self.layout}": self.used} if self.layout else {})

    def told(self) -> str:
        """How many rows are left out, why, and the first of each kind. Empty where there are none."""
        if not self._reasons:
            return ""
        ordered = sorted(self._reasons.values(), key=lambda reason: -reason.rows)
        kinds = "; ".join(f"{reason.rows}, the first of them {reason.place}: {reason.words}" for reason in ordered[:_REASONS_TOLD])
        more = f"; and {len(ordered) - _REASONS_TOLD} more kinds" if len(ordered) > _REASONS_TOLD else ""
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{self.source.uri}: {self.unusable} of {rows} cannot be used ({kinds}{more})."

    def report(self, counts: dict[str, int]) -> None:
        """Into `counts`, and into the log what is left out."""
        for name, count in self.counts().items():
            counts[name] = counts.get(name, 0) + count
        if told := self.told():
            log.warning("%s", told)

    def require_usable(self, rows: int | None = None) -> None:
        """Raises ConfigurationProblem where more rows are left out than the source allows. `rows`: of it, if not all were read.

        The share of rows that cannot be read is one of all, that of rows which cannot be rendered of those that were tried.
        """
        rows = self.rows if rows is None else rows
        unparsable = self.reasons.get("unparsable", 0)
        if unparsable > self.source.max_unparsable_rows:
            raise ConfigurationProblem(
                f"{self.told()} Mend the file; or allow so many with maxUnparsableRows (now {self.source.max_unparsable_rows})."
            )
        unread = (self.unusable - unparsable - self.refused) / max(1, rows)
        refused = self.refused / max(1, rows if self.drawn is None else self.drawn)
        share = unread + refused - unread * refused
        if share > self.source.max_unusable_rows or (share and self.unusable == self.rows):
            raise ConfigurationProblem(
                f"{self.told()} Correct the data or what the source says of it"
                + (
                    "."
                    if self.unusable == self.rows
                    else f"; or allow a larger share with maxUnusableRows (now {self.source.max_unusable_rows:g})."
                )
            )


def require_unicode(value: object) -> None:
    """Raises Unusable for half a character, as a text that was cut in bytes has it: no tokenizer reads that."""
    if isinstance(value, str):
        if _HALF.search(value):
            raise Unusable("notUnicode", f"{shown(value)} holds half of a character (a lone surrogate)")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            require_unicode(key)
            require_unicode(item)
    elif isinstance(value, list | tuple):
        for item in value:
            require_unicode(item)


def has_nulls(value: Any) -> bool:
    """Whether `without_nulls` leaves anything of it out."""
    if isinstance(value, Mapping):
        return any(item is None or has_nulls(item) for item in value.values())
    return isinstance(value, list) and any(map(has_nulls, value))


def without_nulls(value: Any) -> Any:
    """Arrow gives every object of a column the keys of all others, with null."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def shown(value: object) -> str:
    """A value for a message: clipped, and without control characters."""
    text = value if isinstance(value, str) else repr(value)
    clipped = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return repr(clipped) if isinstance(value, str) else "".join(c if c.isprintable() else "?" for c in clipped)
