"""What people answer to the questions of an iteration: agreed between `rlhfctl annotations`, which imports it, and label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from enum import StrEnum

#: Of an answer, in this order: in what is imported, and in the Parquet file of the store (all text).
COLUMNS = ("pair_id", "annotator", "choice")


class Choice(StrEnum):
    A = "A"
    B = "B"
    TIE = "tie"


def annotations_key(digest: str) -> str:
    """Where the answers of this SHA-256 lie in the run's store."""
    return f"annotations/{digest}.parquet"


def verdict(choices: Sequence[Choice]) -> Choice:
    """What was chosen more often than anything else; a tie where nothing was."""
    (first, most), *others = Counter(choices).most_common(2)
    return Choice.TIE if any(count == most for _, count in others) else first


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Agreement beyond chance of any number of annotators, of whom each need not answer everything: 1 is perfect, 0 is chance.

    For values without order: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C,
    alpha = 1 - (n - 1) sum_{c != k} o_ck / sum_{c != k} n_c n_k, with the coincidences o_ck of values c and k within a unit, each
    unit of m values weighing 1 / (m - 1), and n_c = sum_k o_ck, n = sum_c n_c.

    units: the values that one thing was given, by whomever. None where no unit has two, or all are the same value: then nothing
    could have been otherwise.
    """
    totals: Counter[Hashable] = Counter()
    disagreed = 0.0
    for values in units:
        if len(values) < 2:
            continue
        counts = Counter(values)
        totals.update(counts)
        disagreed += sum(count * (len(values) - count) for count in counts.values()) / (len(values) - 1)
    n = totals.total()
    expected = sum(count * (n - count) for count in totals.values())
    return None if expected == 0 else 1.0 - (n - 1) * disagreed / expected
