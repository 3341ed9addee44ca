"""Preference losses as pure functions of log-probs. Shapes: every tensor is [pairs], in nats; a loss is returned per pair.

Notation: u = beta * ((log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))). TRL's trl/trainer/dpo_trainer.py is the
yardstick of the tests; the papers are the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (the name by which everybody knows it)
from torch import Tensor

from rlhf_api.resource.training import IpoAverage, Loss, LossType
from rlhf_trainer.runtime.narrow import present


@dataclass(frozen=True)
class PairLogps:
    """Sums of response log-probs and token counts. `reference_*` are zero for the losses without a reference."""

    chosen: Tensor
    rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reward_margin: Tensor | None = None
    """Of the labeler's scores, for REBEL."""


@dataclass(frozen=True)
class PairLoss:
    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def preference_loss(spec: Loss, logps: PairLogps) -> PairLoss:
    """The loss that `spec.type` names, with `nllWeight` times the chosen response's negative log-likelihood per token added."""
    beta = spec.beta
    chosen_ratio = logps.chosen - logps.reference_chosen
    rejected_ratio = logps.rejected - logps.reference_rejected
    u = beta * (chosen_ratio - rejected_ratio)
    smoothing = spec.label_smoothing if spec.label_smoothing is not None else 0.1
    match spec.type:
        case LossType.SIGMOID:
            if spec.length_normalized:
                chosen_ratio, rejected_ratio = _means(chosen_ratio, rejected_ratio, logps)
                u = beta * (chosen_ratio - rejected_ratio)
            loss = sigmoid(u + (spec.length_margin or 0.0) * (logps.chosen_tokens - logps.rejected_tokens))
        case LossType.CDPO:
            loss = conservative(u, smoothing)
        case LossType.ROBUST:
            loss = robust(u, smoothing)
        case LossType.IPO:
            loss = ipo(chosen_ratio, rejected_ratio, logps, beta, spec.average or IpoAverage.TOKEN)
        case LossType.HINGE:
            loss = torch.relu(1 - u)
        case LossType.SIMPO:
            loss = simpo(logps, beta, spec.gamma if spec.gamma is not None else 0.5)
        case LossType.CPO:
            loss = sigmoid(beta * (logps.chosen - logps.rejected))
        case LossType.SPPO:
            loss = sppo(chosen_ratio, rejected_ratio, beta)
        case LossType.REBEL:
            loss = rebel(u, present(logps.reward_margin, "the margin of the rewards"))
    if spec.nll_weight:
        loss = loss - spec.nll_weight * logps.chosen / logps.chosen_tokens.clamp(min=1)
    if spec.type is LossType.SIMPO:
        # Its implicit reward is the mean, not the sum (equation 4 there): accuracy and margin are of what is compared.
        chosen_ratio, rejected_ratio = _means(logps.chosen, logps.rejected, logps)
    return PairLoss(loss, (beta * chosen_ratio).detach(), (beta * rejected_ratio).detach())


def _means(chosen: Tensor, rejected: Tensor, logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Per token of each response."""
    return chosen / logps.chosen_tokens.clamp(min=1), rejected / logps.rejected_tokens.clamp(min=1)


def sigmoid(u: Tensor) -> Tensor:
    """-log sigmoid(u): DPO, equation 7 of arXiv 2305.18290.

    With log-ratios per token it is the length-normalised DPO of arXiv 2411.15124 (TRL's sigmoid_norm). With alpha times the
    difference of lengths added to u, it is that of arXiv 2403.19159, which iterative length-regularised DPO (arXiv 2406.11817)
    uses: a longer chosen response has a part of its margin for its length, and is learnt the less for it.
    """
    return -F.logsigmoid(u)


def sppo(chosen_ratio: Tensor, rejected_ratio: Tensor, beta: float) -> Tensor:
    """(h_w - eta/2)^2 + (h_l + eta/2)^2 with eta = 1 / beta: equation 4.7 of arXiv 2405.00675, with a win rate of 1 for the chosen
    response and 0 for the rejected one (TRL's sppo_hard).
    """
    half = 0.5 / beta
    return (chosen_ratio - half) ** 2 + (rejected_ratio + half) ** 2


def conservative(u: Tensor, smoothing: float) -> Tensor:
    """cDPO: labels are flipped with probability `smoothing` (E. Mitchell, "A note on DPO with noisy preferences", 2023)."""
    return -(1 - smoothing) * F.logsigmoid(u) - smoothing * F.logsigmoid(-u)


def robust(u: Tensor, smoothing: float) -> Tensor:
    """The unbiased estimate under flips with probability `smoothing`: equation 11 of arXiv 2403.00409."""
    return (-(1 - smoothing) * F.logsigmoid(u) + smoothing * F.logsigmoid(-u)) / (1 - 2 * smoothing)


def ipo(chosen_ratio: Tensor, rejected_ratio: Tensor, logps: PairLogps, beta: float, average: IpoAverage) -> Tensor:
    """(h - 1 / (2 beta))^2: equation 17 of arXiv 2310.12036; h of log-ratios per token (as TRL) or summed."""
    if average is IpoAverage.TOKEN:
        chosen_ratio, rejected_ratio = _means(chosen_ratio, rejected_ratio, logps)
    return (chosen_ratio - rejected_ratio - 1 / (2 * beta)) ** 2


def simpo(logps: PairLogps, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta * (mean logp difference) - gamma): equation 6 of arXiv 2405.14734, gamma in nats as there."""
    chosen, rejected = _means(logps.chosen, logps.rejected, logps)
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def rebel(u: Tensor, reward_margin: Tensor) -> Tensor:
    """(u - (r_w - r_l))^2 with beta = 1 / eta: equation 3 of arXiv 2404.16767. The reference is the policy that sampled."""
    return (u - reward_margin) ** 2


def policy_weight(aligned: Tensor, *, clamped: bool) -> Tensor:
    """What a pair counts in WPO. aligned: the sum, over its responses, of the mean over tokens of log pi(y_t) - log sum_v pi(v)^2.

    Equation 2 of arXiv 2406.11827 with its sampled alignment, as TRL's `use_weighting`; the authors' code clamps it at 1.
    """
    weight = aligned.exp()
    return weight.clamp(max=1.0) if clamped else weight


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(r_w - r_l): equation 2 of arXiv 2405.07863."""
    return -F.logsigmoid(chosen - rejected)
