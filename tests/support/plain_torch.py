"""The same training in plain torch: a whole forward for each prompt + completion, AdamW, nothing of ours but the steps' plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from rlhf_api.resource.compute import Optimization
from rlhf_trainer.data.examples import Example
from rlhf_trainer.training.rank.schedule import Schedule


def completion_logp(model: Any, prompt: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
    """Sum of the completion's log-probs, by one unpadded forward with the model's own causal mask."""
    ids = torch.tensor([[*prompt, *completion]])
    logps = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    picked: torch.Tensor = logps.gather(-1, ids[0, 1:, None])[:, 0]
    return picked[len(prompt) - 1 :].sum()


def dpo_loss(model: Any, example: Example, beta: float = 0.1) -> torch.Tensor:
    chosen, rejected = (completion_logp(model, example.prompt, completion) for completion in example.completions)
    reference = example.reference or (0.0, 0.0)
    return -torch.nn.functional.logsigmoid(beta * ((chosen - reference[0]) - (rejected - reference[1])))


def train_dpo(
    model: Any, examples: Sequence[Example], optimization: Optimization, seed: int = 0
) -> tuple[Any, list[dict[str, float]]]:
    """The trained model and, by step, its mean loss and the norm of its gradient before clipping."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": optimization.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=optimization.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = Schedule.plan(len(examples), optimization, seed)
    lines = []
    for step, indices in enumerate(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(step)
        optimizer.zero_grad()
        loss = torch.stack([dpo_loss(model, examples[index]) for index in indices]).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), optimization.max_grad_norm)
        optimizer.step()
        lines.append({"loss": float(loss.detach()), "grad_norm": float(norm)})
    return model, lines


def named(parameter: str) -> Callable[[str], str]:
    """For torch.testing.assert_close: what it says of a difference, with the parameter's name before it."""
    return lambda text: f"{parameter}: {text}"
