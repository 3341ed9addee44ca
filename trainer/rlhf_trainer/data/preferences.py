"""Labels → training examples: the one place where pairs are cut to length, so that reference and trainer see the same tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_api.resource.training import Overlong

from .examples import Example

Key = tuple[str, int, int]


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


def read_pairs(folder: Path, limits: Limits) -> tuple[list[PairExample], dict[str, int]]:
    """Every pair of a labels artifact, ordered by key, and what was cut or dropped. Cut text never gets an EOS."""
    tables = [pq.read_table(file) for file in sorted(folder.rglob("*.parquet"))]
    rows = pa.concat_tables(tables).to_pylist()
    rows.sort(key=_key)
    pairs: list[PairExample] = []
    counts = {"pairsRead": len(rows)}
    for row in rows:
        fitted = fit(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], limits)
        if isinstance(fitted, str):
            counts[fitted] = counts.get(fitted, 0) + 1
            continue
        if fitted.tokens < len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]):
            counts["pairsTruncated"] = counts.get("pairsTruncated", 0) + 1
        pairs.append(PairExample(_key(row), fitted))
    return pairs, counts


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


def _key(row: Mapping[str, Any]) -> Key:
    return (row["prompt_id"], row["chosen_index"], row["rejected_index"])
