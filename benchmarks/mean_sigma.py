"""How far is MeanSigma's pair from BestWorst's, at n responses a prompt? `python benchmarks/mean_sigma.py`

No model: scores are drawn, a prompt's n at a time, and paired by the code that labels them. Three distributions, all of mean 0 and
standard deviation 1: a normal one, a skewed one (a log-normal turned round, sigma 0.5: most responses are about as good, and some
much worse, skewness -1.75), and a heavy-tailed one (Student's t with 5 degrees of freedom).

Prints for each, and n = 8, 32 and 128, the share of prompts whose rejected response is another than the worst, the mean margin of
either's pairs in standard deviations, and at which place from below MeanSigma's rejected response stands, in the mean (1 is the
worst). Seeded: equal arguments print equal numbers. Half a minute.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_api.resource.training import Pairing, PairingStrategy
from rlhf_trainer.labelers.pairing import Pair, Scored, make_pairs

Draw = Callable[[np.random.Generator, int], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]

_SIGMA = 0.5
_FREEDOM = 5
_MEAN = math.exp(_SIGMA**2 / 2)
_SPREAD = _MEAN * math.sqrt(math.exp(_SIGMA**2) - 1)
DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda random, n: random.standard_normal(n),
    "skewed": lambda random, n: (_MEAN - random.lognormal(0, _SIGMA, n)) / _SPREAD,
    "heavy-tailed": lambda random, n: random.standard_t(_FREEDOM, n) / math.sqrt(_FREEDOM / (_FREEDOM - 2)),
}
SIZES = (8, 32, 128)


@dataclass(frozen=True)
class Compared:
    """Over prompts. differ: the share whose pairs are two; rank: the place of MeanSigma's rejected response from below, from 1."""

    differ: float
    best_worst_margin: float
    mean_sigma_margin: float
    rank: float


def compare(draw: Draw, n: int, prompts: int, seed: int) -> Compared:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(prompts):
        scores = draw(random, n).tolist()
        worst, nearest = (_pair(scores, strategy) for strategy in (PairingStrategy.BEST_WORST, PairingStrategy.MEAN_SIGMA))
        rank = 1 + sum(score < nearest.rejected.score for score in scores)
        found.append((worst != nearest, _margin(worst), _margin(nearest), rank))
    return Compared(*(statistics.fmean(column) for column in zip(*found, strict=True)))


def _pair(scores: Sequence[float], strategy: PairingStrategy) -> Pair:
    scored = [Scored(index, score, True) for index, score in enumerate(scores)]
    (pair,) = make_pairs(scored, Pairing(strategy=strategy), 0, "prompt").pairs
    return pair


def _margin(pair: Pair) -> float:
    return pair.chosen.score - pair.rejected.score


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print("| scores | n | pairs that differ | margin, BestWorst | margin, MeanSigma | place from below |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, draw in DISTRIBUTIONS.items():
        for n in SIZES:
            found = compare(draw, n, options.prompts, options.seed)
            print(
                f"| {name} | {n} | {found.differ:.0%} | {found.best_worst_margin:.2f} | {found.mean_sigma_margin:.2f} "
                f"| {found.rank:.1f} |"
            )


if __name__ == "__main__":
    main()
