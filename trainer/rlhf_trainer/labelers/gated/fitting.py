"""How the heads and the gate of a multi-objective reward model are found, from states of a frozen trunk (arXiv 2406.12845).

As RLHFlow/RLHF-Reward-Modeling has it (armo-rm, fc39179), but for three things. Theirs takes the gate's softmax over two
responses and not over the rewards (issue 54 there): both have the prompt's state, so that each reward gets one half and
nothing is learnt. It leaves out M, by which scoring takes verbosity out. And it drops units of the gate at random.

No stage calls this yet: what a run would train a multi-objective model by is not in the API.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the name by which everybody knows it)
from numpy.typing import NDArray
from torch import Tensor

from rlhf_trainer.runtime.errors import ConfigurationProblem

from .format import SCALE, GatedShape, gate_layer
from .model import gate_weights

#: From which the share of verbosity that is taken out of a reward is chosen: the least that suffices.
PENALTIES = (
    0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.35,
    0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95,
)  # fmt: skip


@dataclass(frozen=True)
class Heads:
    """weight: [K, d], fp64. alphas, errors: of each head, its ridge and the mean squared error on the rows kept for choosing it."""

    weight: Tensor
    alphas: Sequence[float]
    errors: Sequence[float]


def fit_heads(states: Tensor, ratings: Tensor, alphas: Sequence[float], choosing: Tensor, names: Sequence[str]) -> Heads:
    """Ridge regression without intercept, a head for each rating: w = (X'X + alpha I)^-1 X'y over the rows that have it.

    states: [N, d], of the last token. ratings: [N, K], NaN where a row has none. choosing: [N], True for rows that no head
    is fitted to: of `alphas` that is taken which errs least on them. names: [K], for messages.

    Raises ConfigurationProblem for a rating that too few rows have.
    """
    states, ratings = states.double(), ratings.double()
    found: list[tuple[Tensor, float, float]] = []
    for index, name in enumerate(names):
        has = ~ratings[:, index].isnan()
        fitted, kept = has & ~choosing, has & choosing
        if not bool(fitted.any()) or not bool(kept.any()):
            raise ConfigurationProblem(
                f"The rating {name} is of {int(fitted.sum())} rows to fit its head to and {int(kept.sum())} to choose its ridge "
                "by. Bring rows that have it, or leave it out."
            )
        inputs, rating = states[fitted], ratings[fitted, index]
        # One decomposition for all alphas: X'X = Q L Q'.
        values, vectors = torch.linalg.eigh(inputs.T @ inputs)
        projected = vectors.T @ (inputs.T @ rating)
        tried: list[tuple[float, float, Tensor]] = []
        for alpha in alphas:
            weight = vectors @ (projected / (values.clamp(min=0) + alpha))
            error = float(((states[kept] @ weight - ratings[kept, index]) ** 2).mean())
            tried.append((error, alpha, weight))
        error, alpha, weight = min(tried, key=lambda one: one[0])
        found.append((weight, alpha, error))
    return Heads(torch.stack([one[0] for one in found]), [one[1] for one in found], [one[2] for one in found])


def decorrelated(rewards: NDArray[np.float64], verbosity: int, threshold: float) -> NDArray[np.float64]:
    """M [K, K], by which rewards [.., K] are multiplied: r_k - p_k r_v, so that what is left of r_k ranks as verbosity no more.

    rewards: [N, K], of the reference set. p_k is the least of PENALTIES at which Spearman's correlation with r_v is not above
    `threshold`, and 1 where none is enough, and for verbosity itself, which is no reward then.
    """
    objectives = rewards.shape[1]
    penalty = np.ones(objectives)
    of_verbosity = _ranks(rewards[:, verbosity])
    for index in range(objectives):
        if index == verbosity:
            continue
        for tried in PENALTIES:
            left = rewards[:, index] - tried * rewards[:, verbosity]
            if _correlation(_ranks(left), of_verbosity) <= threshold:
                penalty[index] = tried
                break
    transform = np.eye(objectives)
    transform[verbosity] -= penalty
    return transform


@dataclass(frozen=True)
class GateTraining:
    """AdamW with a cosine down to 0, a batch of pairs a step, drawn with replacement."""

    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


@dataclass(frozen=True)
class GateInputs:
    """prompts: [P, d], states where the gate reads; chosen, rejected: [P, K], rewards of the two responses after M."""

    prompts: Tensor
    chosen: Tensor
    rejected: Tensor

    def loss(self, tensors: Sequence[Tensor], shape: GatedShape, places: Tensor) -> Tensor:
        """-log sigmoid(g (r_w - r_l)), the mean over the pairs at `places`. tensors: weights, then biases, then the scale."""
        layers = shape.n_hidden + 1
        weights, biases, scale = tensors[:layers], tensors[layers : 2 * layers], tensors[-1]
        gates = gate_weights(self.prompts[places], weights, biases, shape.temperature, scale)
        return -F.logsigmoid((gates * (self.chosen - self.rejected)[places]).sum(-1)).mean()


def train_gate(inputs: GateInputs, shape: GatedShape, training: GateTraining, seed: int) -> dict[str, Tensor]:
    """The gate's tensors, by the names that GatedShape has. The heads stay as they are: only their rewards come in.

    Raises ConfigurationProblem where the loss is no number.
    """
    generator = torch.Generator().manual_seed(seed)
    widths = [shape.hidden_size, *[shape.hidden_dim] * shape.n_hidden, shape.objectives]
    sizes = list(pairwise(widths))
    # As torch.nn.Linear begins: uniform within 1 / sqrt(inputs).
    weights = [_uniform((outputs, width), width, generator) for width, outputs in sizes]
    biases = [_uniform((outputs,), width, generator) for width, outputs in sizes]
    tensors = [tensor.to(inputs.prompts.device).requires_grad_() for tensor in (*weights, *biases, torch.ones(1))]
    optimizer = torch.optim.AdamW(tensors, lr=training.learning_rate, weight_decay=training.weight_decay)
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * 0.5 * (1 + math.cos(math.pi * step / training.steps))
        places = torch.randint(len(inputs.prompts), (training.batch,), generator=generator).to(inputs.prompts.device)
        loss = inputs.loss(tensors, shape, places)
        if not bool(loss.isfinite()):
            raise ConfigurationProblem(f"The loss of the gate is {float(loss)} at step {step + 1}. Lower its learning rate.")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = [tensor.detach() for tensor in tensors]
    layers = shape.n_hidden + 1
    named = {gate_layer(number, "weight"): found[number] for number in range(layers)}
    named |= {gate_layer(number, "bias"): found[layers + number] for number in range(layers)}
    return named | {SCALE: found[-1]}


def _uniform(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    bound = inputs**-0.5
    drawn: Tensor = torch.rand(shape, generator=generator) * 2 * bound - bound
    return drawn


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of equal values the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: NDArray[np.float64] = (ends - (counts - 1) / 2)[place]
    return found


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Pearson's; 0 where one of the two is constant, for then nothing is to be taken out."""
    first, second = one - one.mean(), other - other.mean()
    spread = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / spread if spread > 0 else 0.0
