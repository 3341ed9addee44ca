"""Rows of files, one after the other: nothing of a data set is held but what is looked at."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, Protocol

from rlhf_trainer.runtime.errors import ConfigurationProblem

from .rows import FileRow, KeyTwice, Row, Unparsable, has_nulls, json_of, without_nulls

DATA_SUFFIXES = (".parquet", ".jsonl", ".json")
#: Rows of a Parquet file that are turned into objects at a time.
_AT_A_TIME = 256
#: Levels of an object. What is deeper is no conversation, and cannot be handed to another process.
_DEEPEST = 100


class Part(Protocol):
    """A file, or another thing with rows, that can be read again and again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Row | Unparsable]: ...


class Rows(Iterable[Row | Unparsable]):
    """The rows of a data set, in its order, read anew each time that they are asked for. Raises ConfigurationProblem then, too."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._count: int | None = None

    def __iter__(self) -> Iterator[Row | Unparsable]:
        for part in self._parts:
            yield from part

    def __len__(self) -> int:
        """Of Parquet by its footers; lines are counted, once."""
        if self._count is None:
            self._count = sum(map(len, self._parts))
        return self._count

    def head(self, rows: int) -> list[Row | Unparsable]:
        return list(islice(self, rows))


class ParquetPart:
    def __init__(self, file: Path, uri: str) -> None:
        self._file = file
        self._uri = uri

    def __len__(self) -> int:
        import pyarrow.parquet as pq

        with _told(self._file, self._uri):
            return int(pq.read_metadata(self._file).num_rows)

    def __iter__(self) -> Iterator[Row | Unparsable]:
        import pyarrow.parquet as pq

        # Not buffered ahead: a file may be one row group of gigabytes.
        with _told(self._file, self._uri), pq.ParquetFile(self._file, pre_buffer=False, buffer_size=2**20) as opened:
            _require_columns_once(opened.schema_arrow.names, self._uri, self._file.name)
            number = count(1)
            for batch in opened.iter_batches(batch_size=_AT_A_TIME, use_threads=False):
                yield from (of_arrow(row, self._file.name, next(number)) for row in batch.to_pylist())


def _require_columns_once(names: Sequence[str], uri: str, file: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ConfigurationProblem(
            f"{uri}: {file} has several columns {twice[0]!r}, and a row would have one of them. Write it with one of each name."
        )


@contextmanager
def _told(file: Path, uri: str) -> Iterator[None]:
    """What pyarrow says of a file, in words."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError, ValueError, OverflowError, KeyError) as error:
        if _is_of_the_machine(error):
            raise
        said = str(error).splitlines()[0]
        raise ConfigurationProblem(f"{uri}: {file.name} is no readable Parquet file: {said}") from error


class LinesPart:
    def __init__(self, file: Path, uri: str) -> None:
        self._file = file
        self._uri = uri

    def __len__(self) -> int:
        return sum(1 for line in self._lines() if line.strip())

    def __iter__(self) -> Iterator[Row | Unparsable]:
        name = self._file.name
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                row = json_of(line)
            except KeyTwice as error:
                yield Unparsable(f"line {number} of {name}: {error}; keep one of them", name, number)
                continue
            except (ValueError, RecursionError) as error:
                words = f"line {number} of {name} is no JSON: {error}. One object a line is read, in UTF-8"
                if number == 1 and line.lstrip().startswith(b"["):
                    words = f"{name} is one JSON array, and one object a line is read{_as_lines(name)}"
                yield Unparsable(words, name, number)
                continue
            if line.count(b"[") + line.count(b"{") > _DEEPEST and _is_deeper(row, _DEEPEST):
                yield Unparsable(f"line {number} of {name} is nested more than {_DEEPEST} deep", name, number)
            elif isinstance(row, dict):
                yield FileRow(row, name, number)
            else:
                write = _as_lines(name) if isinstance(row, list) else ""
                yield Unparsable(f"line {number} of {name} is no object. One object a line is read{write}", name, number)

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._file.open("rb") as file:
                for line in file:
                    yield from line.splitlines()
        except OSError as error:
            if _is_of_the_machine(error):
                raise
            raise ConfigurationProblem(f"{self._uri}: {self._file.name} cannot be read: {error.strerror}.") from error


class DatasetPart:
    """A split that the datasets library has loaded: memory-mapped by it. files: what it was loaded from, where all are Parquet."""

    def __init__(self, dataset: Any, files: Sequence[Path] = ()) -> None:
        self._dataset = dataset
        self._files = files if all(file.suffix == ".parquet" for file in files) else ()

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Row | Unparsable]:
        parts = [(file.name, len(ParquetPart(file, file.name))) for file in self._files]
        if sum(length for _, length in parts) != len(self):
            # Nobody says where they stand.
            return map(of_arrow, self._dataset)
        places = ((name, number) for name, length in parts for number in range(1, length + 1))
        return (of_arrow(row, *place) for row, place in zip(self._dataset, places, strict=True))


def _as_lines(name: str) -> str:
    return f"; write it so: jq -c '.[]' {name}"


def _is_of_the_machine(error: Exception) -> bool:
    """A disk or a mount that fails, and may not the next time; pyarrow's own complaints of a file are OSErrors without a number."""
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR)


def part_of(file: Path, uri: str) -> Part:
    return ParquetPart(file, uri) if file.suffix == ".parquet" else LinesPart(file, uri)


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _is_deeper(item, levels - 1) for item in inner if isinstance(item, dict | list))


def of_arrow(row: dict[str, Any], file: str = "", number: int = 0) -> FileRow:
    """A column that is null is one; what is null within it mostly is a key that only other rows have."""
    found = {name: value if value is None else without_nulls(value) for name, value in row.items()}
    return FileRow(found, file, number, has_nulls(row.get("tools")))
