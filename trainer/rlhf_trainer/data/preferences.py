"""Labels → training examples: the one place where pairs are cut to length, so that reference and trainer see the same tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlhf_api.resource.training import Overlong, Train
from rlhf_api.stage import ReferenceWork, TrainWork

from .examples import Example
from .parquet import Lists

Key = tuple[str, int, int]
#: The number of D_off among the data sets.
OFFLINE = 0


@dataclass(frozen=True)
class PairExample:
    """key: (prompt_id, chosen_index, rejected_index), unique within one D_i."""

    key: Key
    example: Example


@dataclass(frozen=True)
class Limits:
    max_length: int
    max_prompt_length: int
    overlong: Overlong

    @classmethod
    def of(cls, spec: Train | ReferenceWork | TrainWork) -> Limits:
        return cls(spec.max_length, spec.max_prompt_length, spec.overlong)


class Pairs(Iterable[PairExample]):
    """The pairs of a labels artifact, ordered by key, each made when it is asked for: four bytes a token are held.

    `counts`: how many were read, and cut or dropped, by reason. Cut text never gets an EOS.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        table = pa.concat_tables(
            [pq.read_table(file, columns=[*_KEY, *_TEXTS, *_SCORES]) for file in sorted(folder.rglob("*.parquet"))]
        )
        order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in _KEY]).to_pylist()
        self._limits = limits
        self._keys = list(zip(*(table.column(name).to_pylist() for name in _KEY), strict=True))
        self._texts = [Lists(table.column(name)) for name in _TEXTS]
        self._margins = pc.subtract(*(table.column(name).cast(pa.float64()) for name in _SCORES)).to_pylist()
        self._kept: list[int] = []
        self.counts = {"pairsRead": len(order)}
        for row in order:
            fitted, tokens = self._fitted(row)
            if isinstance(fitted, str):
                self._count(fitted)
                continue
            if fitted.tokens < tokens:
                self._count("pairsTruncated")
            self._kept.append(row)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[PairExample]:
        return map(self._pair, self._kept)

    def __getitem__(self, index: int) -> PairExample:
        return self._pair(self._kept[index])

    @property
    def keys(self) -> list[Key]:
        return [self._keys[row] for row in self._kept]

    def _pair(self, row: int) -> PairExample:
        example = cast("Example", self._fitted(row)[0])
        return PairExample(self._keys[row], replace(example, margin=self._margins[row]))

    def _fitted(self, row: int) -> tuple[Example | str, int]:
        """As `fit` has it, and how many tokens it had before."""
        prompt, chosen, rejected = (text[row] for text in self._texts)
        return fit(prompt, chosen, rejected, self._limits), len(prompt) + len(chosen) + len(rejected)

    def _count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


class OfflinePairs:
    """The pairs of D_off, known by their places in its file: equal sources under an equal recipe have them at equal ones."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[PairExample]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> PairExample:
        return PairExample(self._key(index), self._examples[index])

    @property
    def keys(self) -> list[Key]:
        return list(map(self._key, range(len(self))))

    def _key(self, index: int) -> Key:
        return (f"{index:09d}", 0, 1)


def offline_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Of the preparation of D_off, apart from those of the run's own pairs."""
    return {f"offline/{name}": count for name, count in counts.items()}


def fit(prompt: Sequence[int], chosen: Sequence[int], rejected: Sequence[int], limits: Limits) -> Example | str:
    """The example within the limits, or the reason why there is none.

    A prompt is never cut: cut on one side it loses the system turn, on the other the question.
    """
    if len(prompt) > limits.max_prompt_length:
        return "pairsPromptTooLong"
    room = limits.max_length - len(prompt)
    if max(len(chosen), len(rejected)) > room and limits.overlong is Overlong.DROP:
        return "pairsOverlong"
    if list(chosen[:room]) == list(rejected[:room]):
        return "pairsEqual"
    return Example(list(prompt), [list(chosen[:room]), list(rejected[:room])])


def read_reference_logps(folder: Path, iteration: int) -> Mapping[Key, tuple[float, float]]:
    """(chosen, rejected) sums of a reference-logps artifact for D_iteration, by key."""
    found: dict[Key, tuple[float, float]] = {}
    for file in sorted(folder.rglob(f"{stem(iteration)}-*.parquet")):
        for row in pq.read_table(file).to_pylist():
            found[_key(row)] = (row["chosen_logps"], row["rejected_logps"])
    return found


def stem(iteration: int) -> str:
    """Files of D_iteration in a reference-logps artifact begin with this."""
    return f"d{iteration:03d}"


_KEY = ("prompt_id", "chosen_index", "rejected_index")
_SCORES = ("chosen_score", "rejected_score")
#: Their order is that of the arguments of `fit`.
_TEXTS = ("prompt_ids", "chosen_ids", "rejected_ids")


def _key(row: Mapping[str, Any]) -> Key:
    prompt_id, chosen, rejected = (row[name] for name in _KEY)
    return (prompt_id, chosen, rejected)
