"""What the one loop minimises: each objective turns a packed batch into a summed loss and summed metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf_api.resource.training import Loss, Weighting
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import completion_sums, counted_tokens, token_collisions, token_logps, token_predictions
from rlhf_trainer.forward.rewards import completion_rewards
from rlhf_trainer.forward.rows import Batch

from .losses import PairLogps, bradley_terry, policy_weight, preference_loss

#: TRL's keys.
PAIR_METRICS = ("rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected")


@dataclass(frozen=True)
class Summed:
    """loss: scalar, summed over the batch. metrics: sums over the batch, to be divided by the step's weight."""

    loss: Tensor
    metrics: dict[str, float]


class Objective(Protocol):
    """metric_names is fixed, so that ranks can all-reduce without talking about it."""

    metric_names: Sequence[str]

    def weight(self, example: Example) -> float:
        """What the step's loss is divided by, summed over the step: pairs, or tokens."""

    def __call__(self, model: Any, batch: Batch) -> Summed: ...


class SupervisedObjective:
    """Mean negative log-likelihood of the assistant's tokens."""

    metric_names: Sequence[str] = ("mean_token_accuracy",)

    def weight(self, example: Example) -> float:
        return float(example.counted_tokens)

    def __call__(self, model: Any, batch: Batch) -> Summed:
        logps, most_likely = token_predictions(model, batch)
        return Summed(-logps.sum(), {"mean_token_accuracy": float(most_likely.sum())})


class BradleyTerryObjective:
    """-log sigmoid(r_w - r_l) with r read at the last real token of each completion."""

    metric_names: Sequence[str] = PAIR_METRICS

    def weight(self, example: Example) -> float:  # noqa: ARG002 (every pair counts one)
        return 1.0

    def __call__(self, model: Any, batch: Batch) -> Summed:
        rewards = completion_rewards(model, batch)
        if not batch.completions:
            return Summed(rewards.sum(), dict.fromkeys(self.metric_names, 0.0))
        chosen, rejected = rewards[0::2], rewards[1::2]
        loss = bradley_terry(chosen, rejected).sum()
        return Summed(loss, _pair_metrics(chosen.detach(), rejected.detach()))


class PreferenceObjective:
    """DPO and its relatives, against cached reference log-probs."""

    metric_names: Sequence[str] = (*PAIR_METRICS, "logps/chosen", "logps/rejected")

    def __init__(self, spec: Loss) -> None:
        self._spec = spec

    def weight(self, example: Example) -> float:  # noqa: ARG002
        return 1.0

    def __call__(self, model: Any, batch: Batch) -> Summed:
        weighting = self._spec.weighting
        logps, collisions = (token_logps(model, batch), None) if weighting is None else token_collisions(model, batch)
        if not batch.completions:
            return Summed(logps.sum(), dict.fromkeys(self.metric_names, 0.0))
        sums, tokens = completion_sums(logps, batch), counted_tokens(batch)
        reference = torch.tensor([v for e in batch.examples for v in (e.reference or (0.0, 0.0))], device=sums.device)
        margins = torch.tensor([e.margin or 0.0 for e in batch.examples], device=sums.device)
        pairs = PairLogps(sums[0::2], sums[1::2], reference[0::2], reference[1::2], tokens[0::2], tokens[1::2], margins)
        outcome = preference_loss(self._spec, pairs)
        loss = outcome.loss
        if collisions is not None:
            aligned = completion_sums(logps.detach() - collisions, batch) / tokens.clamp(min=1)
            loss = loss * policy_weight(aligned[0::2] + aligned[1::2], clamped=weighting is Weighting.WPO_CLAMPED)
        metrics = _pair_metrics(outcome.chosen_reward, outcome.rejected_reward)
        metrics["logps/chosen"] = float(pairs.chosen.detach().sum())
        metrics["logps/rejected"] = float(pairs.rejected.detach().sum())
        return Summed(loss.sum(), metrics)


def _pair_metrics(chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    margins = chosen - rejected
    return {
        "rewards/accuracies": float((margins > 0).sum()),
        "rewards/margins": float(margins.sum()),
        "rewards/chosen": float(chosen.sum()),
        "rewards/rejected": float(rejected.sum()),
    }
