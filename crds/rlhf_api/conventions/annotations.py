"""What people answer to the questions of an iteration: agreed between `rlhfctl annotations`, which imports it, and label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Annotator:
    """as_verdict: of the answers, those that are the verdict of their pair."""

    name: str
    answers: int
    as_verdict: int


@dataclass(frozen=True)
class Tally:
    """answered: pairs with enough answers; tied: of those, without a majority. alpha: of all answers, as `krippendorff_alpha`."""

    answered: int
    tied: int
    answers: int
    annotators: tuple[Annotator, ...]
    alpha: float | None


def tally(answers: Iterable[tuple[str, str, Choice]], least: int) -> Tally:
    """answers: (pair_id, annotator, choice), each annotator's to a pair once. least: with so many answers a pair counts."""
    by_pair: dict[str, list[tuple[str, Choice]]] = defaultdict(list)
    for pair, annotator, choice in answers:
        by_pair[pair].append((annotator, choice))
    given: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    verdicts = {pair: verdict([choice for _, choice in own]) for pair, own in by_pair.items()}
    for pair, own in by_pair.items():
        given.update(annotator for annotator, _ in own)
        agreed.update(annotator for annotator, choice in own if choice is verdicts[pair])
    enough = [verdicts[pair] for pair, own in by_pair.items() if len(own) >= least]
    return Tally(
        answered=len(enough),
        tied=Counter(enough)[Choice.TIE],
        answers=given.total(),
        annotators=tuple(Annotator(name, given[name], agreed[name]) for name in sorted(given)),
        alpha=krippendorff_alpha([choice for _, choice in own] for own in by_pair.values()),
    )


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
