"""Scored completions of one prompt → preference pairs. Pure; a tie never makes a pair."""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_api.resource.training import LengthStopped, Pairing, PairingStrategy

#: The count of prompts that were not selected: whose scores differ, and not by enough to learn from.
BELOW_REWARD_STD = "promptsBelowRewardStd"


@dataclass(frozen=True)
class Scored:
    """score: after the length penalty. Raises ValueError where it is not finite: every comparison with it would be false."""

    index: int
    score: float
    stopped: bool

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"completion {self.index} has a score of {self.score}")


@dataclass(frozen=True)
class Pair:
    chosen: Scored
    rejected: Scored


@dataclass(frozen=True)
class Paired:
    """Pairs of one prompt, or why there is none (the key of a count)."""

    pairs: Sequence[Pair]
    dropped: str | None = None


def make_pairs(completions: Sequence[Scored], pairing: Pairing, seed: int, prompt_id: str) -> Paired:
    """The pairs of one prompt, which nothing decides but its own scores (ADR 0033).

    BestRandom draws its rejected one from all others, by a seed of its own for each prompt.
    """
    usable = [c for c in completions if c.stopped or pairing.length_stopped is not LengthStopped.DROP]
    chosen_from = [c for c in usable if c.stopped or pairing.length_stopped is not LengthStopped.REJECTED_ONLY]
    if not chosen_from or len(usable) < 2:
        return Paired((), "promptsLengthStopped")
    tied = max(c.score for c in usable) == min(c.score for c in usable)
    if pairing.min_reward_std is not None and not tied and _std(usable) <= pairing.min_reward_std:
        return Paired((), BELOW_REWARD_STD)
    # Equal scores: the earlier completion, so that the choice does not depend on how rows were ordered.
    best = max(chosen_from, key=lambda c: (c.score, -c.index))
    if pairing.strategy is PairingStrategy.ALL_ABOVE_MARGIN:
        pairs = [Pair(a, b) for a in chosen_from for b in usable if a.score - b.score > pairing.min_margin]
    else:
        others = [c for c in usable if c is not best]
        rejected = _rejected(usable, others, pairing.strategy, seed, prompt_id)
        pairs = [Pair(best, rejected)] if best.score - rejected.score > pairing.min_margin else []
    if pairs:
        return Paired(tuple(pairs))
    return Paired((), "promptsTied" if tied else "promptsBelowMargin")


def _std(completions: Sequence[Scored]) -> float:
    """Of the responses that were sampled, and not an estimate of all that might be."""
    return statistics.pstdev([c.score for c in completions])


def _rejected(usable: Sequence[Scored], others: Sequence[Scored], strategy: PairingStrategy, seed: int, prompt_id: str) -> Scored:
    """Of `others`. MeanSigma: whose score is nearest to mu - 2 sigma of all usable ones (arXiv 2502.16825), for the worst of many
    responses teaches less than one that is merely bad. Of ten or fewer it is the worst (docs/recipe.md).
    """
    match strategy:
        case PairingStrategy.MEAN_SIGMA:
            target = statistics.fmean([c.score for c in usable]) - 2 * _std(usable)
            return min(others, key=lambda c: (abs(c.score - target), c.index))
        case PairingStrategy.BEST_RANDOM:
            digest = hashlib.sha256(f"{seed}/best-random/{prompt_id}".encode()).digest()
            return random.Random(digest).choice(sorted(others, key=lambda c: c.index))
        case PairingStrategy.BEST_SECOND:
            return max(others, key=lambda c: (c.score, -c.index))
        case _:
            return min(others, key=lambda c: (c.score, c.index))
