"""Files of answers, as annotation tools write them: JSON, JSON lines, CSV, Parquet. What they say is checked elsewhere."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_api.conventions.annotations import COLUMNS
from rlhfctl.client.answer_shapes import rows_of
from rlhfctl.errors import CliError, NotFound, UsageProblem


@dataclass(frozen=True)
class Answer:
    """Texts without blanks around them; empty where a row has none. `where`: file and row, for errors."""

    pair_id: str
    annotator: str
    choice: str
    where: str


def read_answers(path: Path) -> Iterator[Answer]:
    """By the file's ending: .parquet, .csv, .jsonl, .json. Raises NotFound; UsageProblem where it cannot be read as that."""
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".json": _json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageProblem(f"{path} is of no known form", hints=("give files that end in .jsonl, .json, .csv or .parquet",))
    try:
        for where, row in ((where, row) for where, task in reader(path) for row in rows_of(task)):
            lacking = [name for name in COLUMNS if name not in row]
            if lacking:
                raise UsageProblem(
                    f"{where} has no {' and no '.join(lacking)}", why=f"it has {', '.join(map(str, row)) or 'nothing'}"
                )
            pair, annotator, choice = ("" if row[name] is None else str(row[name]).strip() for name in COLUMNS)
            yield Answer(pair, annotator, choice, where)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageProblem(f"{path} cannot be read", why=str(error)) from error


_Rows = Iterator[tuple[str, Mapping[str, Any]]]


def _jsonl(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UsageProblem(f"{where} is no JSON", why=str(error)) from error
            if not isinstance(row, dict):
                raise UsageProblem(f"{where} is no JSON object")
            yield where, row


def _json(path: Path) -> _Rows:
    """A list of rows, or one of them."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        hint = f"lines of JSON belong into {path.stem}.jsonl"
        raise UsageProblem(f"{path} is no JSON", why=str(error), hints=(hint,)) from error
    for number, row in enumerate(found if isinstance(found, list) else [found], start=1):
        if not isinstance(row, dict):
            raise UsageProblem(f"{path}, entry {number} is no JSON object")
        yield f"{path}, entry {number}", row


def _csv(path: Path) -> _Rows:
    with path.open(encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        for row in reader:
            yield f"{path}, line {reader.line_num}", row


def _parquet(path: Path) -> _Rows:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise CliError(f"{path} is Parquet, and pyarrow is not installed", hints=("pip install pyarrow",)) from error
    try:
        rows = pq.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise UsageProblem(f"{path} cannot be read", why=str(error)) from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row
