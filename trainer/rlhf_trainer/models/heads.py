"""Output layers that answer with what a loss needs, each in one module call.

ZeRO-3 gathers a layer's weights when the layer is called, on all ranks together. So ranks must make the same calls, however many
tokens each has; what loops, loops inside the call.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the name by which everybody knows it)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhf_trainer.runtime.errors import ConfigurationProblem

#: Predicted tokens whose logits exist at once. 1,024 tokens of a 128k vocabulary are 0.5 GB in fp32.
CHUNK = 1024
#: Fields of a config with which a model changes its logits after the head, which our forward would not do.
_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class LanguageHead(nn.Linear):
    """The output embedding of a language model; without targets what it always was."""

    def forward(self, states: Tensor, targets: Tensor | None = None, *, collisions: bool = False) -> Any:
        """states [P, d], targets [P] → log-probs [P] of the targets, in fp32, and whether each is the most likely token [P].

        With `collisions`, also log sum_v p_v^2 [P] without a graph: how probable two equal draws are. Logits are recomputed in the
        backward pass.
        """
        if targets is None:
            return super().forward(states)
        parts = zip(torch.split(states, CHUNK), torch.split(targets, CHUNK), strict=True)
        scored = [checkpoint(self._score, part, target, collisions, use_reentrant=False) for part, target in parts]
        return tuple(map(torch.cat, zip(*scored, strict=True)))

    def _score(self, states: Tensor, targets: Tensor, collisions: bool) -> tuple[Tensor, ...]:
        logits = F.linear(states, self.weight, self.bias).float()
        own, total = logits.gather(-1, targets[:, None])[:, 0], logits.logsumexp(-1)
        found = own - total, own.detach() >= logits.detach().amax(-1)
        return (*found, (2 * logits.detach()).logsumexp(-1) - 2 * total.detach()) if collisions else found


class RewardHead(nn.Linear):
    """The scalar head of a reward model, in fp32 whatever the trunk's dtype: bf16 would round near scores to ties."""

    def forward(self, states: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.linear(states.float(), self.weight.float(), bias)


def use_language_head(model: Any) -> None:
    """Raises ConfigurationProblem for a model whose logits are not those of a linear layer."""
    changed = [name for name in _CHANGED_LOGITS if getattr(model.config, name, None) not in (None, 1, 1.0)]
    if changed:
        raise ConfigurationProblem(
            f"{type(model).__name__} changes its logits behind the head ({', '.join(changed)}), which this version's trainer does "
            "not do: its log-probs would be wrong. Name a model without it."
        )
    _become(model.get_output_embeddings(), LanguageHead, model)


def use_reward_head(model: Any) -> None:
    """Raises ConfigurationProblem for a classifier whose head is not a linear layer `score`."""
    _become(getattr(model, "score", None), RewardHead, model)


def _become(head: Any, kind: type[nn.Linear], model: Any) -> None:
    if type(head) is not nn.Linear:
        raise ConfigurationProblem(
            f"The head of {type(model).__name__} is {type(head).__name__}, and not a linear layer: "
            "this version cannot train or score with it."
        )
    head.__class__ = kind
