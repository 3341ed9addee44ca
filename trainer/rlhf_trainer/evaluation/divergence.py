"""KL to pi_0 and entropy, by the trainer's forward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlhf_api.stage import EvaluateWork, PolicyInput
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.folder import model_folder, trusts
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.context import StageContext

from .answers import Answer


@dataclass(frozen=True)
class Divergence:
    """A figure a sample: summed log-ratio to pi_0 and summed entropy in nats, tokens."""

    log_ratios: Sequence[float]
    entropies: Sequence[float]
    tokens: Sequence[float]


def divergence(context: StageContext, work: EvaluateWork, answers: Sequence[Answer]) -> Divergence:
    """log pi_t - log pi_0 of what pi_t said at temperature 1, both sides by the trainer's forward."""
    examples = [Example(a.prompt_ids, [a.completion_ids]) for a in answers if a.completion_ids]
    ours, entropies, tokens = _score(context, work.policy, examples)
    if work.policy == work.initial:
        return Divergence([0.0] * len(ours), entropies, tokens)
    theirs, _, _ = _score(context, work.initial, examples)
    return Divergence([a - b for a, b in zip(ours, theirs, strict=True)], entropies, tokens)


def _score(context: StageContext, policy: PolicyInput, examples: list[Example]) -> tuple[list[float], list[float], list[float]]:
    """(logps, entropies, tokens), one a sample, in the order of `examples`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = model_folder(context, policy.model)
    model = load_causal_lm(folder, TORCH_DTYPE[policy.dtype], trust_remote_code=trusts(policy.model)).to(device)
    position = {id(example): index for index, example in enumerate(examples)}
    logps, entropies, tokens = ([0.0] * len(examples) for _ in range(3))
    packing = Packing.choose(max((example.tokens for example in examples), default=1), device)
    for row in score_examples(model, examples, packing, with_entropy=True):
        for number, example in enumerate(row.examples):
            index = position[id(example)]
            logps[index], tokens[index] = row.logps[number], row.tokens[number]
            entropies[index] = row.entropies[number] if row.entropies else 0.0
    return logps, entropies, tokens
