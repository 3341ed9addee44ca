"""What becomes of a pair by what other pairs there are: duplicates, contradictions, too many of a prompt, held out (ADR 0035).

All pairs are made first, into a file with their keys. Of each the keys alone are held, 16 bytes, and some 45 more while it is
decided; then the file is gone through again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.resource.labeler import PreferenceCleaning, RewardHeldOut
from rlhf_trainer.data.examples import EXAMPLES, Example, ExamplesWriter
from rlhf_trainer.data.layouts import Preference
from rlhf_trainer.data.rows import Row, Tally, Unparsable
from rlhf_trainer.runtime.errors import ConfigurationProblem

Keys = NDArray[np.uint64]

#: Of a pair that is not decided on yet. `pair`: of prompt and both answers, whichever is chosen; its last bit says which one is.
#: `asked`: of the prompt. `place`: of its row, for messages.
#: Of a question about a pair, of which there is one for each order: whether it is `trained` on where its pair is, and the
#: `lengths` of the pair's two responses, in tokens; an example that is a pair itself has its lengths in it.
CANDIDATES = pa.schema(
    [
        *EXAMPLES,
        ("pair", pa.uint64()),
        ("asked", pa.uint64()),
        ("place", pa.string()),
        ("subset", pa.string()),
        ("trained", pa.bool_()),
        ("lengths", pa.list_(pa.int32())),
    ]
)
#: A column of rows that tables are made by.
SUBSET = "subset"
#: Of a pair that a model is measured by: as an example, with what its figures are told by.
HELD_OUT = pa.schema([*EXAMPLES, ("asked", pa.uint64()), ("subset", pa.string())])
#: Of a pair that a pairwise model is measured by: two rows, one for each order; the first has the chosen response first.
HELD_OUT_QUESTIONS = pa.schema([*HELD_OUT, ("lengths", pa.list_(pa.int32()))])
#: Of files beside that of the examples.
CANDIDATES_SUFFIX, HELD_OUT_SUFFIX = ".candidates", ".held-out.arrow"
_ONE = np.uint64(1)
#: Of a row that cannot be read: it is drawn last.
_LAST = 2**64 - 1

KEPT = ""
DUPLICATE, CONTRADICTORY, OF_PROMPT = "pairsDuplicate", "pairsContradictory", "pairsOverMaxPerPrompt"
HELD, OF_HELD = "pairsHeldOut", "pairsOfHeldOutPrompt"
_REASONS = (KEPT, DUPLICATE, CONTRADICTORY, OF_PROMPT, HELD, OF_HELD)
_WORDS: Mapping[str, str] = {
    DUPLICATE: "the same prompt, chosen and rejected as a pair before it (cleaning.dropDuplicates)",
    CONTRADICTORY: "another pair prefers its rejected answer to its chosen one (cleaning.dropContradictions)",
    OF_PROMPT: "its prompt has more pairs than cleaning.maxPairsPerPrompt",
    OF_HELD: "its prompt is one of heldOut.data",
}


def sample(rows: Iterable[Row | Unparsable], wanted: int, seed: str) -> bytearray:
    """1 for each of the `wanted` rows that are taken: the same ones, by what they hold, in whatever order they come.

    Of rows that are equal to the last character the first are taken. 8 bytes a row are held, and as many while it is decided.
    """
    key = blake2b(seed.encode()).digest()
    hashes = np.frombuffer(array("Q", (_hash_of(row, key) for row in rows)), dtype=np.uint64)
    taken = np.zeros(len(hashes), dtype=np.uint8)
    if wanted > 0:
        last = np.partition(hashes, min(wanted, len(hashes)) - 1)[min(wanted, len(hashes)) - 1]
        taken[hashes < last] = 1
        equal = np.flatnonzero(hashes == last)
        taken[equal[: wanted - int(taken.sum())]] = 1
    return bytearray(taken.tobytes())


def _hash_of(row: Row | Unparsable, key: bytes) -> int:
    if isinstance(row, Unparsable):
        return _LAST
    text = json.dumps(dict(row), sort_keys=True, default=str)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest(), "big")


def with_keys(
    batch: pa.RecordBatch, examples: Sequence[Example], items: Sequence[Preference], tally: Tally, rows: Mapping[int, Any]
) -> pa.RecordBatch:
    """The examples of `batch`, made from some of `items`, with columns as CANDIDATES has them. rows: of the items, by number."""
    by_row = {item.row: item for item in items}
    made = [Keyed(example.row or 0, [[*example.prompt, *completion] for completion in example.completions]) for example in examples]
    return keyed(batch, made, by_row, tally, rows)


@dataclass(frozen=True)
class Keyed:
    """A row of a batch: its row of the data set, and the ids that tell its pair, those of the chosen response first."""

    row: int
    sides: Sequence[Sequence[int]]
    trained: bool = True
    lengths: Sequence[int] | None = None


def keyed(
    batch: pa.RecordBatch, made: Sequence[Keyed], by_row: Mapping[int, Preference], tally: Tally, rows: Mapping[int, Any]
) -> pa.RecordBatch:
    """`batch` with the columns that CANDIDATES has beyond those of an example."""
    keys: dict[str, list[Any]] = {
        "pair": [pair_key(one.sides) for one in made],
        "asked": [asked_key(by_row[one.row]) for one in made],
        "place": [tally.place(one.row) for one in made],
        "subset": [subset if isinstance(subset := rows[one.row].get(SUBSET), str) else None for one in made],
        "trained": [one.trained for one in made],
        "lengths": [one.lengths for one in made],
    }
    columns = [pa.array(values, CANDIDATES.field(name).type) for name, values in keys.items()]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=CANDIDATES)


def pair_key(sides: Sequence[Sequence[int]]) -> int:
    """64 bits. Of 700,000 pairs two that differ have the same by a chance of 1 in 37 million."""
    chosen, rejected = map(_of_ids, sides)
    both = blake2b(min(chosen, rejected) + max(chosen, rejected), digest_size=8).digest()
    return int.from_bytes(both, "big") & ~1 | (chosen > rejected)


def asked_key(item: Preference) -> int:
    """64 bits of what is asked, whatever blanks stand between its words."""
    turns = [[message["role"], " ".join(str(message["content"]).split())] for message in item.prompt]
    return int.from_bytes(blake2b(canonical_json({"turns": turns, "tools": item.tools}), digest_size=8).digest(), "big")


def _of_ids(ids: Sequence[int]) -> bytes:
    return blake2b(array("i", ids).tobytes(), digest_size=16).digest()


@dataclass(frozen=True)
class Selection:
    """seed: by which prompts are held out. field: of the data, for messages."""

    cleaning: PreferenceCleaning | None
    held_out: RewardHeldOut | None
    seed: int
    field: str = "reward.bradleyTerry.train.data"

    def decide(self, pairs: Keys, asked: Keys, own: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Of each pair the number of its reason in _REASONS; 0 where it is trained on. own: 1 for those of heldOut.data.

        Raises ConfigurationProblem where nothing is held out that was to be.
        """
        reasons = np.zeros(len(pairs), dtype=np.uint8)
        reasons[own != 0] = _REASONS.index(HELD)
        if own.any():
            reasons[(own == 0) & np.isin(asked, asked[own != 0])] = _REASONS.index(OF_HELD)
        if self.cleaning is not None:
            clean(pairs, asked, self.cleaning, reasons)
        if self.held_out is not None:
            if self.held_out.data is None:
                hold_out(asked, self.held_out, self.seed, reasons)
            if not (reasons == _REASONS.index(HELD)).any():
                field = self.field.removesuffix(".data")
                raise ConfigurationProblem(
                    f"{field}.heldOut: none of {len(pairs)} pairs is held out. Hold out more, or leave it out."
                )
        return reasons


def clean(pairs: Keys, asked: Keys, cleaning: PreferenceCleaning, reasons: NDArray[np.uint8]) -> None:
    """Writes to `reasons`, of what has none yet.

    Contradictions come first: of a pair that is there twice one way and once the other nothing can be said. Which pairs of a prompt
    stay depends on what they hold alone.
    """
    order = _sorted(pairs, np.flatnonzero(reasons == 0).astype(np.int32))
    if cleaning.drop_contradictions:
        # Ways of one pair stand side by side, for they differ in the last bit alone.
        ordered = pairs[order]
        same, way = _groups(ordered >> _ONE), (ordered & _ONE).astype(np.int8)
        ways = np.bincount(same, weights=way) / np.bincount(same)
        both = (ways > 0) & (ways < 1)
        reasons[order[both[same]]] = _REASONS.index(CONTRADICTORY)
        order = order[reasons[order] == 0]
    if cleaning.drop_duplicates:
        ordered = pairs[order]
        reasons[order[1:][ordered[1:] == ordered[:-1]]] = _REASONS.index(DUPLICATE)
        order = order[reasons[order] == 0]
    if cleaning.max_pairs_per_prompt is not None:
        order = _sorted(asked, order)
        # As many places before it asks the same: one too many.
        most, ordered = cleaning.max_pairs_per_prompt, asked[order]
        reasons[order[most:][ordered[most:] == ordered[:-most]]] = _REASONS.index(OF_PROMPT)


def hold_out(asked: Keys, held_out: RewardHeldOut, seed: int, reasons: NDArray[np.uint8]) -> None:
    """Of what has no reason yet, whole prompts: by a hash of prompt and seed, so that it is no matter what else there is."""
    left = np.flatnonzero(reasons == 0).astype(np.int32)
    drawn = _mixed(asked[left], seed)
    if held_out.fraction is not None:
        held = drawn < np.uint64(int(held_out.fraction * 2**64))
    else:
        size = min(held_out.size or 0, len(left))
        # The last prompt is taken whole.
        held = drawn <= np.partition(drawn, size - 1)[size - 1] if size else np.zeros(0, dtype=bool)
    reasons[left[held]] = _REASONS.index(HELD)


def _mixed(keys: Keys, seed: int) -> Keys:
    """splitmix64's finaliser: another order of the same keys for each seed."""
    start = int.from_bytes(blake2b(str(seed).encode(), digest_size=8).digest(), "big")
    mixed = keys ^ np.uint64(start)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: Keys = mixed ^ (mixed >> np.uint64(31))
    return found


def _sorted(keys: Keys, order: NDArray[np.int32]) -> NDArray[np.int32]:
    """`order` by its keys; what has equal keys stays as it is."""
    found: NDArray[np.int32] = order[np.argsort(keys[order], kind="stable")]
    return found


def _groups(ordered: Keys) -> NDArray[np.int32]:
    """Of each of these sorted keys the number of its run of equal ones."""
    return np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1], dtype=np.int32)], dtype=np.int32)[: len(ordered)]


@dataclass(frozen=True)
class LeftOut:
    """By reason: how many, and in words, with the first of each. held_out: a file as HELD_OUT has it."""

    counts: Mapping[str, int]
    told: Sequence[str]
    held_out: Path | None


class Candidates:
    """A file of pairs that are not decided on yet, beside `file`; to be closed by `select`.

    each: rows of a pair, which stand side by side.
    """

    def __init__(self, file: Path, each: int = 1) -> None:
        self._each = each
        self._file, self._held_out = file.with_suffix(CANDIDATES_SUFFIX), file.with_suffix(HELD_OUT_SUFFIX)
        self._writer = pa.ipc.new_file(self._file, CANDIDATES)
        self._keys: dict[str, array[int]] = {name: array("Q") for name in ("pair", "asked")}
        self._ends: list[tuple[str, int]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """All of one source."""
        self._writer.write_batch(batch)
        for name, held in self._keys.items():
            held.frombytes(batch.column(name).to_numpy()[:: self._each].tobytes())
        if len(batch):
            self._ends.append((batch.column("source")[0].as_py(), len(batch) // self._each))

    def select(self, selection: Selection, writer: ExamplesWriter, uris: Mapping[str, str]) -> LeftOut:
        """Writes those that stay. uris: of the sources."""
        self._writer.close()
        pairs, asked = (np.frombuffer(held, dtype=np.uint64) for held in self._keys.values())
        reasons = selection.decide(pairs, asked, self._own(selection))
        firsts: dict[str, str] = {}
        held = self._write(reasons, writer, firsts, uris, selection.held_out is not None)
        counts = {_REASONS[reason]: int((reasons == reason).sum()) for reason in np.unique(reasons[reasons != 0]).tolist()}
        told = [
            f"{count} pairs are left out, the first of them {firsts[name]}: {_WORDS[name]}."
            for name, count in counts.items()
            if name in _WORDS
        ]
        return LeftOut(counts, told, held)

    def _own(self, selection: Selection) -> NDArray[np.uint8]:
        """1 for each pair of heldOut.data."""
        own = selection.held_out.data.name if selection.held_out is not None and selection.held_out.data is not None else None
        return np.repeat(
            np.array([source == own for source, _ in self._ends], dtype=np.uint8),
            np.array([rows for _, rows in self._ends], dtype=np.int64),
        )

    def _write(
        self, reasons: NDArray[np.uint8], writer: ExamplesWriter, firsts: dict[str, str], uris: Mapping[str, str], measured: bool
    ) -> Path | None:
        """`firsts` gets the place of the first pair of each reason. The file of what is held out, where something is to be."""
        schema = HELD_OUT if self._each == 1 else HELD_OUT_QUESTIONS
        aside = pa.ipc.new_file(self._held_out, schema) if measured else None
        with pa.memory_map(str(self._file)) as mapped:
            opened, start = pa.ipc.open_file(mapped), 0
            for number in range(opened.num_record_batches):
                batch = opened.get_batch(number)
                pairs = len(batch) // self._each
                own = np.repeat(reasons[start : start + pairs], self._each)
                start += pairs
                for reason in np.unique(own[own != 0]).tolist():
                    firsts.setdefault(_REASONS[reason], _place(batch, int(np.argmax(own == reason)), uris))
                kept = pc.and_(pa.array(own == 0), batch.column("trained"))
                writer.add(batch.select(EXAMPLES.names).filter(kept))
                held = own == _REASONS.index(HELD)
                if aside is not None and held.any():
                    aside.write_batch(batch.select(schema.names).filter(pa.array(held)))
        self._file.unlink()
        if aside is None:
            return None
        aside.close()
        return self._held_out


def _place(batch: Any, index: int, uris: Mapping[str, str]) -> str:
    source, place = (batch.column(name)[index].as_py() for name in ("source", "place"))
    return f"{uris[source]}: {place}"
