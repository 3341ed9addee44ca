"""The guard on every train: what is cached of the reference is what the trainer's own forward says, or nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rlhf_api.resource.model import Dtype
from rlhf_trainer.data.examples import Example
from rlhf_trainer.forward.logps import score_examples
from rlhf_trainer.forward.rows import Packing
from rlhf_trainer.models.loading import TORCH_DTYPE, load_causal_lm
from rlhf_trainer.runtime.errors import ConfigurationProblem
from rlhf_trainer.training.job import Guard

#: Examples that are scored again.
EXAMPLES = 32


def check_reference(
    guard: Guard,
    dtype: Dtype,
    examples: Sequence[Example],
    device: torch.device,
    packing: Packing,
    *,
    trust_remote_code: bool = False,
) -> None:
    """Raises ConfigurationProblem when template, weights or dtype differ. The reference is freed before the policy is loaded."""
    difference = reference_difference(Path(guard.reference_folder), dtype, examples, device, packing, trust_remote_code)
    if not difference <= guard.tolerance:
        raise ConfigurationProblem(
            f"The cached reference log-probs are not those of the reference as the trainer computes them: they differ "
            f"by {difference:.3g} nats per token (allowed: {guard.tolerance}). The reference's weights, the chat template or the "
            "dtype changed between the reference stage and training; delete the reference-logps artifact and run again.",
            reason="ReferenceMismatch",
        )


def reference_difference(
    folder: Path, dtype: Dtype, examples: Sequence[Example], device: torch.device, packing: Packing, trust_remote_code: bool
) -> float:
    """Sum over completions of |cached - computed| log-prob, divided by their tokens: nats."""
    model = load_causal_lm(folder, TORCH_DTYPE[dtype], trust_remote_code=trust_remote_code).to(device)
    difference = tokens = 0.0
    for batch in score_examples(model, examples[:EXAMPLES], packing):
        cached = [value for example in batch.examples for value in example.reference]
        difference += sum(abs(a - b) for a, b in zip(batch.logps, cached, strict=True))
        tokens += sum(batch.tokens)
    return difference / max(1.0, tokens)
