"""What is trained on and scored: a prompt and its completions as ids. A file of them is mapped, so that ranks share its memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import pyarrow as pa


@dataclass(frozen=True)
class Example:
    """One prompt with one (SFT) or two (chosen, rejected) completions, as ids.

    `counted` marks, for each completion, the tokens that the loss counts; None: all of them. `reference` holds the reference
    log-probs of the completions (sums, nats), where the loss has one. `margin`: by how much the labeler scored the chosen one
    higher. `row` (from 1) is the one of the data set that it is from, if any.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    counted: Sequence[Sequence[bool]] | None = None
    reference: Sequence[float] = ()
    margin: float | None = None
    row: int | None = field(default=None, compare=False)

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(completion) for completion in self.completions)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that it holds: the prompt with one completion."""
        return len(self.prompt) + max(map(len, self.completions), default=0)

    @property
    def counted_tokens(self) -> int:
        """Tokens that are predicted: without a prompt, nothing predicts the first."""
        first = 0 if self.prompt else 1
        if self.counted is None:
            return sum(len(completion) - first for completion in self.completions)
        return sum(sum(flags[first:]) for flags in self.counted)


_IDS = pa.list_(pa.int32())
#: Columns of a file of examples. `counted`: for each completion, where the loss begins and ends to count, in turns; null: all.
#: `source` and `row`: which data set of the manifest it is from, and which row (from 1); null where it is made from no row.
EXAMPLES = pa.schema(
    [
        ("prompt", _IDS),
        ("completions", pa.list_(_IDS)),
        ("counted", pa.list_(_IDS)),
        ("reference", pa.list_(pa.float64())),
        ("margin", pa.float64()),
        ("source", pa.string()),
        ("row", pa.int64()),
    ]
)
#: Examples of a batch of the file.
_BATCH = 1024


def to_batch(examples: Sequence[Example], source: str | None = None) -> pa.RecordBatch:
    """Columns as EXAMPLES has them."""
    return pa.RecordBatch.from_pydict(
        {
            "prompt": [e.prompt for e in examples],
            "completions": [e.completions for e in examples],
            "counted": [None if e.counted is None else [_spans(flags) for flags in e.counted] for e in examples],
            "reference": [e.reference or None for e in examples],
            "margin": [e.margin for e in examples],
            "source": [source] * len(examples),
            "row": [e.row for e in examples],
        },
        schema=EXAMPLES,
    )


class ExamplesWriter:
    """A file of examples, in the order in which they come. To be closed: a file that is not is none."""

    def __init__(self, file: Path) -> None:
        # Not compressed, or it could not be mapped.
        self._writer = pa.ipc.new_file(file, EXAMPLES)
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self.rows += batch.num_rows

    def close(self) -> None:
        self._writer.close()


def write_examples(file: Path, examples: Iterable[Example]) -> int:
    """How many they were."""
    writer = ExamplesWriter(file)
    held: list[Example] = []
    for example in examples:
        held.append(example)
        if len(held) == _BATCH:
            writer.add(to_batch(held))
            held = []
    if held:
        writer.add(to_batch(held))
    writer.close()
    return writer.rows


class Examples(Sequence[Example]):
    """The examples of a file, each made when it is asked for. Processes that map the same file share its memory."""

    def __init__(self, file: Path) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(file)))
        self._batches = [_Columns(table.get_batch(number)) for number in range(table.num_record_batches)]
        self._ends = list(accumulate(len(batch) for batch in self._batches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        place = index % len(self)
        number = bisect_right(self._ends, place)
        return self._batches[number].example(place - (self._ends[number - 1] if number else 0))

    def __iter__(self) -> Iterator[Example]:
        for batch in self._batches:
            yield from map(batch.example, range(len(batch)))

    @property
    def most_tokens(self) -> int:
        """Of an example: its prompt and all its completions."""
        return max((int(batch.tokens.max()) for batch in self._batches if len(batch)), default=0)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence: a prompt with one completion."""
        return max((batch.longest for batch in self._batches), default=0)


class _Columns:
    """A batch as NumPy arrays over the mapped file."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        prompt, completions, counted = (batch.column(name) for name in ("prompt", "completions", "counted"))
        self._prompt_at, self._prompt = _array(prompt.offsets), _array(prompt.values)
        self._completions_at = _array(completions.offsets)
        self._ids_at, self._ids = _array(completions.values.offsets), _array(completions.values.values)
        self._is_counted = _array(counted.is_valid(), copied=True)
        self._counted_at = _array(counted.offsets)
        self._spans_at, self._spans = _array(counted.values.offsets), _array(counted.values.values)
        self._reference, self._margin = batch.column("reference"), batch.column("margin")

    def __len__(self) -> int:
        return len(self._prompt_at) - 1

    @property
    def tokens(self) -> Any:
        """[examples]."""
        prompts = self._prompt_at[1:] - self._prompt_at[:-1]
        ends = self._ids_at[self._completions_at]
        return prompts + ends[1:] - ends[:-1]

    @property
    def longest(self) -> int:
        prompts = (self._prompt_at[1:] - self._prompt_at[:-1]).repeat(self._completions_at[1:] - self._completions_at[:-1])
        return int((prompts + self._ids_at[1:] - self._ids_at[:-1]).max(initial=0))

    def example(self, place: int) -> Example:
        first, behind = self._completions_at[place : place + 2]
        prompt = self._prompt[self._prompt_at[place] : self._prompt_at[place + 1]].tolist()
        completions = [self._ids[self._ids_at[i] : self._ids_at[i + 1]].tolist() for i in range(first, behind)]
        counted = None
        if self._is_counted[place]:
            lists = range(*self._counted_at[place : place + 2])
            spans = [self._spans[self._spans_at[i] : self._spans_at[i + 1]].tolist() for i in lists]
            counted = [_flags(own, len(ids)) for own, ids in zip(spans, completions, strict=True)]
        reference = tuple(self._reference[place].as_py() or ())
        return Example(prompt, completions, counted, reference, self._margin[place].as_py())


def _array(column: pa.Array, *, copied: bool = False) -> Any:
    return column.to_numpy(zero_copy_only=not copied)


def _spans(flags: Sequence[bool]) -> list[int]:
    """Where runs of True begin and end: [start, end, start, end, …]."""
    changes = [i for i in range(1, len(flags)) if flags[i] != flags[i - 1]]
    edges = [0, *changes] if flags and flags[0] else changes
    return edges if len(edges) % 2 == 0 else [*edges, len(flags)]


def _flags(spans: Sequence[int], length: int) -> list[bool]:
    flags = [False] * length
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        flags[start:end] = [True] * (end - start)
    return flags
