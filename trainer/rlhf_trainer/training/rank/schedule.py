"""Which examples each optimizer step reads, on which rank, and at what learning rate. Pure; the same on every rank."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_api.resource.compute import LrSchedule, Optimization


@dataclass(frozen=True)
class Schedule:
    """steps[k]: the indices of the examples of step k, over all ranks."""

    steps: Sequence[Sequence[int]]
    examples: int
    optimization: Optimization

    @classmethod
    def plan(cls, examples: int, optimization: Optimization, seed: int) -> Schedule:
        """Epochs are fresh permutations of all examples, laid end to end; the last step may be smaller. Nothing is dropped."""
        total = max(1, round(examples * optimization.epochs))
        # Arrays, for every rank has one: of 700,000 pairs a list would be 28 MB.
        stream = array("l")
        epoch = 0
        while len(stream) < total:
            order = array("l", range(examples))
            random.Random(f"{seed}/{epoch}").shuffle(order)
            stream += order
            epoch += 1
        del stream[total:]
        size = optimization.global_batch_size
        steps = [stream[start : start + size] for start in range(0, total, size)]
        if optimization.max_steps is not None:
            del steps[optimization.max_steps :]
        return cls(steps, examples, optimization)

    def share(self, step: int, rank: int, world: int) -> Sequence[int]:
        """The examples of `step` that `rank` of `world` reads. Global ranks: shares are disjoint over nodes too."""
        return self.steps[step][rank::world]

    def epoch(self, step: int) -> float:
        """Passes over all examples that are done after `step`."""
        return (step * self.optimization.global_batch_size + len(self.steps[step])) / self.examples

    def learning_rate(self, step: int) -> float:
        """Linear warmup over warmupRatio of the steps, then the schedule down to 0, as transformers' schedules have it."""
        total, peak = len(self.steps), self.optimization.learning_rate
        warmup = math.ceil(self.optimization.warmup_ratio * total)
        if step < warmup:
            return peak * (step + 1) / warmup
        progress = (step - warmup) / max(1, total - warmup)
        match self.optimization.lr_schedule:
            case LrSchedule.COSINE:
                return peak * 0.5 * (1 + math.cos(math.pi * progress))
            case LrSchedule.LINEAR:
                return peak * (1 - progress)
            case LrSchedule.CONSTANT:
                return peak
