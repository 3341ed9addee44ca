"""How well scores tell the chosen response from the rejected ones: accuracy, calibration, by length, by subset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from rlhf_api.base import Model
from rlhf_api.metrics import MetricValue
from rlhf_trainer.data.examples import Example, Examples

from .stats import Floats, share_with_interval

BINS = 10
#: Lengths that differ by no more than this share of the longer one are about equal.
ABOUT_EQUAL = 0.1


class Scorer(Protocol):
    def scores_of(self, examples: Iterable[Example]) -> Iterator[list[float]]: ...


@dataclass(frozen=True)
class Comparison:
    """Scores of the chosen response, and of the best of the rejected ones. prompt: equal for equal prompts. Lengths: in tokens."""

    prompt: int
    chosen: float
    rejected: float
    chosen_length: float
    rejected_length: float
    subset: str

    @property
    def outcome(self) -> float:
        """1, 0, or ½ for a tie."""
        return _won(self.chosen, self.rejected)

    @property
    def by_length(self) -> float:
        """What a judge that prefers the longer response would say."""
        return _won(self.chosen_length, self.rejected_length)

    @property
    def length(self) -> str:
        difference = self.chosen_length - self.rejected_length
        if abs(difference) <= ABOUT_EQUAL * max(self.chosen_length, self.rejected_length):
            return "AboutEqual"
        return "ChosenLonger" if difference > 0 else "ChosenShorter"


class Part(Model):
    """Some of the pairs. by_length: accuracy of preferring the longer response, to compare with."""

    name: str
    pairs: int
    accuracy: MetricValue
    by_length: float


class Bin(Model):
    """Of predictions from `lower` on: how many, their mean, and the share that came true. Each pair is there in both orders."""

    lower: float
    predictions: int
    predicted: float | None = None
    observed: float | None = None


class ComparisonFigures(Model):
    """`held_out.json`."""

    pairs: int
    prompts: int
    accuracy: MetricValue
    by_length: float
    mean_of_subsets: float
    expected_calibration_error: float
    calibration: list[Bin]
    lengths: list[Part]
    subsets: list[Part]


def comparison_figures(comparisons: Iterable[Comparison]) -> ComparisonFigures:
    """Raises ValueError where there are none."""
    found = list(comparisons)
    if not found:
        raise ValueError("there is no pair to measure by")
    whole = _part("", found)
    bins, error = _calibration(np.array([pair.chosen - pair.rejected for pair in found]))
    subsets = _parts(found, lambda pair: pair.subset)
    return ComparisonFigures(
        pairs=len(found),
        prompts=len({pair.prompt for pair in found}),
        accuracy=whole.accuracy,
        by_length=whole.by_length,
        mean_of_subsets=float(np.mean([part.accuracy.value for part in subsets])),
        expected_calibration_error=error,
        calibration=bins,
        lengths=_parts(found, lambda pair: pair.length),
        subsets=subsets,
    )


def scored_pairs(file: Path, scorer: Scorer) -> Iterator[Comparison]:
    """The pairs of a file as HELD_OUT of training/prepared/selection.py has it. A subset is called by its data set, too.

    scorer: of each example the scores of chosen and rejected. Lengths are those of the answers as the model reads them.
    """
    opened = pa.ipc.open_file(pa.memory_map(str(file)))
    names = [_names(opened.get_batch(number)) for number in range(opened.num_record_batches)]
    told = (name for batch in names for name in batch)
    examples = Examples(file)
    for example, scores, (asked, name) in zip(examples, scorer.scores_of(examples), told, strict=True):
        chosen, rejected = map(len, example.completions)
        yield Comparison(asked, scores[0], scores[1], chosen, rejected, name)


def compared_pairs(file: Path, scorer: Scorer) -> Iterator[Comparison]:
    """The pairs of a file as HELD_OUT_QUESTIONS has it: two examples each. scorer: of each pair log P of chosen and rejected."""
    opened = pa.ipc.open_file(pa.memory_map(str(file)))
    batches = [opened.get_batch(number) for number in range(opened.num_record_batches)]
    names = [name for batch in batches for name in _names(batch)][::2]
    lengths = [pair for batch in batches for pair in batch.column("lengths").to_pylist()][::2]
    for scores, (asked, name), (chosen, rejected) in zip(scorer.scores_of(Examples(file)), names, lengths, strict=True):
        yield Comparison(asked, scores[0], scores[1], chosen, rejected, name)


def _names(batch: pa.RecordBatch) -> list[tuple[int, str]]:
    columns = (batch.column(name).to_pylist() for name in ("asked", "source", "subset"))
    return [(asked, source if subset is None else f"{source}/{subset}") for asked, source, subset in zip(*columns, strict=True)]


def _won(chosen: float, rejected: float) -> float:
    return 1.0 if chosen > rejected else 0.0 if chosen < rejected else 0.5


def _parts(pairs: Sequence[Comparison], name: Callable[[Comparison], str]) -> list[Part]:
    found: dict[str, list[Comparison]] = {}
    for pair in pairs:
        found.setdefault(name(pair), []).append(pair)
    return [_part(key, found[key]) for key in sorted(found)]


def _part(name: str, pairs: Sequence[Comparison]) -> Part:
    accuracy = share_with_interval([pair.outcome for pair in pairs], [pair.prompt for pair in pairs])
    return Part(name=name, pairs=len(pairs), accuracy=accuracy, by_length=float(np.mean([pair.by_length for pair in pairs])))


def _calibration(margins: Floats) -> tuple[list[Bin], float]:
    """sigma(r_w - r_l), of each pair once as it is (true) and once turned round (not true), for a pair has no order of its own.

    So the upper five bins say of the pairs how often the model is right when it is so sure, and the lower five mirror them.
    """
    both = np.concatenate([margins, -margins])
    true = np.concatenate([np.ones(len(margins)), np.zeros(len(margins))])
    predicted = np.exp(-np.logaddexp(0.0, -both))
    place = np.minimum((predicted * BINS).astype(np.int64), BINS - 1)
    bins: list[Bin] = []
    error = 0.0
    for number in range(BINS):
        inside = place == number
        if not inside.any():
            bins.append(Bin(lower=number / BINS, predictions=0))
            continue
        mean, share = float(predicted[inside].mean()), float(true[inside].mean())
        bins.append(Bin(lower=number / BINS, predictions=int(inside.sum()), predicted=mean, observed=share))
        error += float(inside.sum()) / len(both) * abs(mean - share)
    return bins, error
