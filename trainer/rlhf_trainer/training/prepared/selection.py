"""What becomes of a pair by what other pairs there are: duplicates, contradictions, too many of a prompt (ADR 0035).

All pairs are made first, into a file with their keys. Of each the keys alone are held, 16 bytes, and some 45 more while it is
decided; then the file is gone through again.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.resource.labeler import PreferenceCleaning
from rlhf_trainer.data.examples import EXAMPLES, Example, ExamplesWriter
from rlhf_trainer.data.layouts import Preference
from rlhf_trainer.data.rows import Row, Tally, Unparsable

Keys = NDArray[np.uint64]

#: Of a pair that is not decided on yet. `pair`: of prompt and both answers, whichever is chosen; its last bit says which one is.
#: `asked`: of the prompt. `place`: of its row, for messages.
CANDIDATES = pa.schema([*EXAMPLES, ("pair", pa.uint64()), ("asked", pa.uint64()), ("place", pa.string())])
_ONE = np.uint64(1)
#: Of a row that cannot be read: it is drawn last.
_LAST = 2**64 - 1

KEPT = ""
DUPLICATE, CONTRADICTORY, OF_PROMPT = "pairsDuplicate", "pairsContradictory", "pairsOverMaxPerPrompt"
_REASONS = (KEPT, DUPLICATE, CONTRADICTORY, OF_PROMPT)
_WORDS: Mapping[str, str] = {
    DUPLICATE: "the same prompt, chosen and rejected as a pair before it (cleaning.dropDuplicates)",
    CONTRADICTORY: "another pair prefers its rejected answer to its chosen one (cleaning.dropContradictions)",
    OF_PROMPT: "its prompt has more pairs than cleaning.maxPairsPerPrompt",
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


def with_keys(batch: pa.RecordBatch, examples: Sequence[Example], items: Sequence[Preference], tally: Tally) -> pa.RecordBatch:
    """The examples of `batch`, made from some of `items`, with columns as CANDIDATES has them."""
    by_row = {item.row: item for item in items}
    made = [(example, example.row or 0) for example in examples]
    keys = {
        "pair": [pair_key(example) for example, _ in made],
        "asked": [asked_key(by_row[row]) for _, row in made],
        "place": [tally.place(row) for _, row in made],
    }
    columns = [pa.array(values, CANDIDATES.field(name).type) for name, values in keys.items()]
    return pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=CANDIDATES)


def pair_key(example: Example) -> int:
    """64 bits. Of 700,000 pairs two that differ have the same by a chance of 1 in 37 million."""
    chosen, rejected = (_of_ids([*example.prompt, *completion]) for completion in example.completions)
    both = blake2b(min(chosen, rejected) + max(chosen, rejected), digest_size=8).digest()
    return int.from_bytes(both, "big") & ~1 | (chosen > rejected)


def asked_key(item: Preference) -> int:
    """64 bits of what is asked, whatever blanks stand around a turn."""
    turns = [[message["role"], str(message["content"]).strip()] for message in item.prompt]
    return int.from_bytes(blake2b(canonical_json({"turns": turns, "tools": item.tools}), digest_size=8).digest(), "big")


def _of_ids(ids: Sequence[int]) -> bytes:
    return blake2b(array("i", ids).tobytes(), digest_size=16).digest()


def decide(pairs: Keys, asked: Keys, cleaning: PreferenceCleaning) -> NDArray[np.uint8]:
    """Of each pair the number of its reason in _REASONS; 0 where it stays.

    Contradictions come first: of a pair that is there twice one way and once the other nothing can be said. Which pairs of a prompt
    stay depends on what they hold alone.
    """
    reasons = np.zeros(len(pairs), dtype=np.uint8)
    order = _sorted(pairs, np.arange(len(pairs), dtype=np.int32))
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
    return reasons


def _sorted(keys: Keys, order: NDArray[np.int32]) -> NDArray[np.int32]:
    """`order` by its keys; what has equal keys stays as it is."""
    found: NDArray[np.int32] = order[np.argsort(keys[order], kind="stable")]
    return found


def _groups(ordered: Keys) -> NDArray[np.int32]:
    """Of each of these sorted keys the number of its run of equal ones."""
    return np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1], dtype=np.int32)], dtype=np.int32)[: len(ordered)]


@dataclass(frozen=True)
class LeftOut:
    """By reason: how many, and in words, with the first of each."""

    counts: Mapping[str, int]
    told: Sequence[str]


@dataclass
class Candidates:
    """A file of pairs that are not decided on yet; to be closed by `select`."""

    file: Path
    _pairs: array[int] = field(default_factory=lambda: array("Q"))
    _asked: array[int] = field(default_factory=lambda: array("Q"))

    def __post_init__(self) -> None:
        self._writer = pa.ipc.new_file(self.file, CANDIDATES)

    def add(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        for held, name in ((self._pairs, "pair"), (self._asked, "asked")):
            held.frombytes(batch.column(name).to_numpy().tobytes())

    def select(self, cleaning: PreferenceCleaning, writer: ExamplesWriter, uris: Mapping[str, str]) -> LeftOut:
        """Writes those that stay. uris: of the sources."""
        self._writer.close()
        pairs, asked = (np.frombuffer(held, dtype=np.uint64) for held in (self._pairs, self._asked))
        reasons = decide(pairs, asked, cleaning)
        firsts: dict[str, str] = {}
        with pa.memory_map(str(self.file)) as mapped:
            opened, start = pa.ipc.open_file(mapped), 0
            for number in range(opened.num_record_batches):
                batch = opened.get_batch(number)
                own = reasons[start : start + len(batch)]
                start += len(batch)
                for reason in np.unique(own[own != 0]).tolist():
                    firsts.setdefault(_REASONS[reason], _place(batch, int(np.argmax(own == reason)), uris))
                writer.add(batch.select(EXAMPLES.names).filter(pa.array(own == 0)))
        self.file.unlink()
        counts = {_REASONS[reason]: int((reasons == reason).sum()) for reason in np.unique(reasons[reasons != 0]).tolist()}
        told = [f"{count} pairs are left out, the first of them {firsts[name]}: {_WORDS[name]}." for name, count in counts.items()]
        return LeftOut(counts, told)


def _place(batch: Any, index: int, uris: Mapping[str, str]) -> str:
    source, place = (batch.column(name)[index].as_py() for name in ("source", "place"))
    return f"{uris[source]}: {place}"
