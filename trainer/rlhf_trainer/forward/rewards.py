"""Rewards of packed rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .logps import hidden_states
from .rows import Batch


def completion_rewards(model: Any, batch: Batch) -> Tensor:
    """Scalar rewards [C]: the head on the last real token of each completion, in fp32. Padding plays no part: there is none."""
    states = hidden_states(model, batch)[batch.ends]
    rewards: Tensor = model.score(states)
    return rewards[:, 0]


def gated_rewards(model: Any, batch: Batch, gates: Tensor) -> Tensor:
    """Scores [C] of a model whose `heads` read the last token of each completion and another one; gates: [C], its place in the
    flattened ids. Both are states of one forward.
    """
    states = hidden_states(model, batch)
    scores: Tensor = model.heads(states[batch.ends], states[gates])
    return scores
