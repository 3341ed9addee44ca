"""Rows of a recipe's data sets to a file of examples. Nothing of a set is held but the rows at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlhf_api.resource.data import DataSource
from rlhf_api.resource.labeler import PairOrders
from rlhf_api.words import StageName
from rlhf_trainer.data.columns import LOOKED_AT
from rlhf_trainer.data.examples import ExamplesWriter, to_batch
from rlhf_trainer.data.files import Rows
from rlhf_trainer.data.held_out import HeldOutPrompts, Overlap
from rlhf_trainer.data.layouts import Preference, Reader, demonstrations_of, preferences_of
from rlhf_trainer.data.messages import functions_of, tools_of
from rlhf_trainer.data.rows import Row, Tally, Unparsable
from rlhf_trainer.models.vocabulary import Vocabulary
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.runtime.logs import log
from rlhf_trainer.runtime.processes import processes_for
from rlhf_trainer.runtime.progress import Progress

from .encoding import encode_demonstrations, encode_preferences
from .pool import in_order
from .questions import encode_questions, examples_of, with_question_keys
from .recipe import Recipe
from .selection import SUBSET, Candidates, Selection, sample, with_keys

#: Rows that a process is given at a time, or so many characters: the file's batches, whatever the number of processes.
PIECE, PIECE_CHARACTERS = 256, 2**20
_OF_A_NUMBER = 8
#: Of two responses.
_ORDERS = 2
#: Counts, by source.
_COMPARED, _SAME, _NEAR = "compared", "heldOut", "nearHeldOut"


@dataclass(frozen=True)
class _Piece:
    """rows: from the one with number `first` (from 1) on. taken: 1 for each that the mixture draws; None: all."""

    source: str
    first: int
    rows: Sequence[Row | Unparsable]
    taken: bytes | None


@dataclass(frozen=True)
class _Encoded:
    source: str
    batch: pa.RecordBatch
    tally: Tally
    counts: Mapping[str, int]
    overlap: Overlap


@dataclass
class Preparation:
    """What became of the rows of each source, what of them asks what is held out, and what was counted of all of them."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    overlaps: dict[str, Overlap] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    examples: int = 0
    left_out: list[str] = field(default_factory=list)
    """In words: which pairs others have made superfluous."""
    held_out: Path | None = field(default=None, compare=False)
    """A file of pairs that a reward model is measured by."""


class Preprocessor:
    """Makes the examples of a recipe, under a vocabulary. with_tools: where the recipe does not know its held-out prompts yet."""

    def __init__(
        self, recipe: Recipe, vocabulary: Vocabulary, held_out: HeldOutPrompts | None, *, with_tools: bool = False
    ) -> None:
        self.recipe = recipe
        self._vocabulary = vocabulary
        self._held_out = held_out
        self._read_tools = functions_of if with_tools or recipe.with_tools else tools_of
        self._readers: dict[str, Reader[Any]] = {}

    def look_at(self, source: DataSource, head: Sequence[Row | Unparsable]) -> None:
        """By its first rows, what all are read as. Raises ConfigurationProblem."""
        of = demonstrations_of if self.recipe.stage is StageName.SFT else preferences_of
        self._readers[source.name] = of(source, head, self.recipe.field, self._read_tools)

    def encode(self, piece: _Piece) -> _Encoded:
        """Raises ConfigurationProblem where the template is at fault."""
        items, tally = self._readers[piece.source].read(piece.rows, piece.first)
        if piece.taken is not None:
            items = [item for item in items if piece.taken[item.row - piece.first]]
            tally.drawn = len(items)
        counts: dict[str, int] = {}
        overlap = Overlap()
        if self.recipe.stage is StageName.SFT:
            limit = self.recipe.limits.max_length
            examples = encode_demonstrations(items, tally, self._vocabulary, limit, counts, self._held_out, overlap)
        elif self.recipe.orders is not None:
            return self._encode_questions(self.recipe.orders, items, tally, piece, counts, overlap)
        else:
            examples = encode_preferences(items, tally, self._vocabulary, self.recipe.comparison, counts, self._held_out, overlap)
        batch = to_batch(examples, piece.source)
        if self.recipe.selects:
            batch = with_keys(batch, examples, items, tally, self._rows_of(items, piece, tally))
        return _Encoded(piece.source, batch, tally, counts, overlap)

    def _encode_questions(
        self, orders: PairOrders, items: Sequence[Preference], tally: Tally, piece: _Piece, counts: dict[str, int], overlap: Overlap
    ) -> _Encoded:
        recipe = self.recipe
        asked = encode_questions(
            items,
            tally,
            self._vocabulary,
            recipe.limits.max_length,
            recipe.seed,
            recipe.min_margin,
            counts,
            self._held_out,
            overlap,
        )
        if recipe.selects:
            batch = with_question_keys(asked, piece.source, items, tally, self._rows_of(items, piece, tally), orders)
        else:
            batch = to_batch(examples_of(asked, orders), piece.source)
        return _Encoded(piece.source, batch, tally, counts, overlap)

    def _rows_of(self, items: Sequence[Preference], piece: _Piece, tally: Tally) -> dict[int, Any]:
        """By number, to be read for their subsets."""
        tally.columns_read |= {SUBSET}
        return {item.row: piece.rows[item.row - piece.first] for item in items}

    def try_first(self, source: DataSource, rows: Rows, first: int) -> Preparation:
        """The first rows alone. Raises ConfigurationProblem where they show what would be refused of all."""
        head = rows.head(max(first, LOOKED_AT))
        self.look_at(source, head[:LOOKED_AT])
        encoded = self.encode(_Piece(source.name, 1, head[:first], None))
        encoded.tally.require_usable(len(rows))
        return Preparation(
            {source.name: encoded.tally}, {source.name: encoded.overlap}, dict(encoded.counts), encoded.batch.num_rows
        )

    def prepare(
        self,
        sets: Sequence[tuple[DataSource, Rows]],
        file: Path,
        progress: Progress,
        *,
        processes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Preparation:
        """All rows, into `file`: the same one whatever `processes` is (None: by what the machine has).

        Raises ConfigurationProblem where more of a source cannot be used than it allows.
        """
        for source, rows in sets:
            self.look_at(source, rows.head(LOOKED_AT))
        total = sum(len(rows) for _, rows in sets)
        if self._held_out is not None:
            self._held_out.index()
        found = Preparation({source.name: Tally(source) for source, _ in sets}, {source.name: Overlap() for source, _ in sets})
        drawn = {source.name: self._drawn(source, rows) for source, rows in sets}
        for source, _ in sets:
            _require_drawn(self.recipe, source, drawn[source.name])
        found.counts |= {f"drawn/{name}": sum(taken) for name, taken in drawn.items() if taken is not None}
        writer = ExamplesWriter(file)
        candidates = Candidates(file, 1 if self.recipe.orders is None else _ORDERS) if self.recipe.selects else None
        done, began = 0, clock()
        for encoded in in_order(self.encode, _pieces(sets, drawn), processes or processes_for(total // PIECE)):
            (candidates or writer).add(encoded.batch)
            found.tallies[encoded.source].add(encoded.tally)
            found.overlaps[encoded.source].add(encoded.overlap)
            for name, count in encoded.counts.items():
                found.counts[name] = found.counts.get(name, 0) + count
            done += encoded.tally.rows
            progress.update(done, total, "rows", _pace(done, total, clock() - began))
        if candidates is not None:
            uris = {source.name: source.uri for source, _ in sets}
            selection = Selection(self.recipe.cleaning, self.recipe.held_out_pairs, self.recipe.seed, self.recipe.field)
            left_out = candidates.select(selection, writer, uris)
            found.held_out = left_out.held_out
            found.counts |= left_out.counts
            found.left_out += left_out.told
            for told in left_out.told:
                log.warning("%s", told)
        writer.close()
        for tally in found.tallies.values():
            tally.require_usable()
            tally.report(found.counts)
        found.counts |= {key: count for name, overlap in found.overlaps.items() for key, count in counts_of(overlap, name).items()}
        found.examples = writer.rows
        return found

    def _drawn(self, source: DataSource, rows: Rows) -> bytearray | None:
        """As Recipe.drawn; where the source allows only so many, by what the rows hold, which takes a reading of its own."""
        wanted = self.recipe.wanted(source, len(rows))
        if source.max_examples is None or wanted == len(rows):
            return self.recipe.drawn(source, len(rows))
        return sample(rows, wanted, f"{self.recipe.seed}/{source.name}")


def _require_drawn(recipe: Recipe, source: DataSource, taken: bytearray | None) -> None:
    if taken is not None and not any(taken):
        raise ConfigurationProblem(
            f"{recipe.field}: no row of {source.uri} is drawn: its weight, {source.weight:g}, is too small beside the others' for "
            f"its {len(taken)} rows. Raise it, or leave the data set out."
        )


def _pieces(sets: Sequence[tuple[DataSource, Rows]], drawn: Mapping[str, bytearray | None]) -> Iterator[_Piece]:
    for source, rows in sets:
        taken = drawn[source.name]
        first = 1
        for read in _stretches(rows):
            own = None if taken is None else bytes(taken[first - 1 : first - 1 + len(read)])
            yield _Piece(source.name, first, read, own)
            first += len(read)


def _stretches(rows: Iterable[Row | Unparsable]) -> Iterator[list[Row | Unparsable]]:
    held: list[Row | Unparsable] = []
    characters = 0
    for row in rows:
        held.append(row)
        characters += _characters(row)
        if len(held) == PIECE or characters >= PIECE_CHARACTERS:
            yield held
            held, characters = [], 0
    if held:
        yield held


def _characters(value: Any) -> int:
    """As it would be written, or nearly."""
    if isinstance(value, str | bytes):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else None
    return _OF_A_NUMBER if inner is None else sum(map(_characters, inner))


def counts_of(overlap: Overlap, source: str) -> dict[str, int]:
    """Nothing where nothing overlaps. `overlap_of` reads them again."""
    if not overlap.same and not overlap.near:
        return {}
    figures = {_COMPARED: overlap.asked, _SAME: overlap.same, _NEAR: overlap.near}
    return {f"{name}/{source}": count for name, count in figures.items() if count}


def overlap_of(counts: Mapping[str, int], source: str) -> Overlap:
    asked, same, near = (counts.get(f"{name}/{source}", 0) for name in (_COMPARED, _SAME, _NEAR))
    return Overlap(asked, same, near)


def _pace(done: int, total: int, seconds: float) -> str:
    """`900/s, 4 min left`."""
    if seconds <= 0:
        return ""
    left = (total - done) * seconds / done
    told = f"{left / 60:.0f} min" if left >= 60 else f"{left:.0f} s"
    return f"{done / seconds:.0f}/s, {told} left"
