"""The one forward pass: of the trainer, of the reference stage, of klToInitial. fp32 log-softmax, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .rows import Example, Row, build_row, pack

#: Predicted tokens whose logits exist at once. 1,024 tokens of a 128k vocabulary are 0.5 GB in fp32.
CHUNK = 1024


@dataclass(frozen=True)
class TokenLogps:
    """logps, entropy: [P] in nats, for the P predicted tokens of a row."""

    logps: Tensor
    entropy: Tensor | None = None


def hidden_states(model: Any, row: Row) -> Tensor:
    """Last hidden states [L, d] of a row under its tree mask."""
    output = model.base_model(
        input_ids=row.ids, attention_mask=row.mask, position_ids=row.positions, use_cache=False, return_dict=True
    )
    states: Tensor = output.last_hidden_state[0]
    return states


def token_logps(model: Any, row: Row, *, with_entropy: bool = False) -> TokenLogps:
    """log pi of every predicted token of `row`. The logits of a chunk are recomputed in the backward pass, never kept."""
    states = hidden_states(model, row)[row.predictors]
    head = model.get_output_embeddings()
    logps, entropies = [], []
    for start in range(0, states.shape[0], CHUNK):
        part, target = states[start : start + CHUNK], row.targets[start : start + CHUNK]
        if torch.is_grad_enabled() and states.requires_grad:
            logps.append(checkpoint(_chunk_logps, head, part, target, use_reentrant=False))
        else:
            logits = head(part).float()
            normalised = logits.log_softmax(-1)
            logps.append(normalised.gather(-1, target[:, None])[:, 0])
            if with_entropy:
                entropies.append(-(normalised.exp() * normalised).sum(-1))
    if not logps:
        # Nothing is predicted here; keep the graph, so that every rank's backward pass runs the same collectives.
        logps = [head(states[:0]).float().sum(-1)]
    return TokenLogps(torch.cat(logps), torch.cat(entropies) if entropies else None)


def completion_sums(values: Tensor, row: Row) -> Tensor:
    """Sums [C] of per-token `values` [P] over each completion of the row."""
    return torch.zeros(row.completions, dtype=values.dtype, device=values.device).index_add(0, row.owner, values)


def counted_tokens(row: Row) -> Tensor:
    """Predicted tokens [C] of each completion."""
    return completion_sums(torch.ones_like(row.targets, dtype=torch.float32), row)


@torch.no_grad()
def score_examples(
    model: Any, examples: Iterable[Example], token_budget: int, *, with_entropy: bool = False
) -> Iterator[ScoredRow]:
    """Every example under `model`, packed as the trainer packs them; rows come in packing order, each with its examples."""
    for group in pack(list(examples), token_budget):
        row = to_device(build_row(group), device_of(model))
        scored = token_logps(model, row, with_entropy=with_entropy)
        yield ScoredRow(
            examples=group,
            logps=completion_sums(scored.logps, row).tolist(),
            tokens=counted_tokens(row).tolist(),
            entropies=completion_sums(scored.entropy, row).tolist() if scored.entropy is not None else None,
        )


@dataclass(frozen=True)
class ScoredRow:
    """logps, tokens, entropies: a figure a completion, examples in order and completions in order within them."""

    examples: list[Example]
    logps: list[float]
    tokens: list[float]
    entropies: list[float] | None


def _chunk_logps(head: Any, states: Tensor, targets: Tensor) -> Tensor:
    logits: Tensor = head(states).float()
    return logits.gather(-1, targets[:, None])[:, 0] - logits.logsumexp(-1)


def to_device(row: Row, device: torch.device) -> Row:
    if row.ids.device == device:
        return row
    return Row(
        ids=row.ids.to(device),
        positions=row.positions.to(device),
        mask=row.mask.to(device),
        predictors=row.predictors.to(device),
        targets=row.targets.to(device),
        owner=row.owner.to(device),
        ends=row.ends.to(device),
        examples=row.examples,
    )


def device_of(model: Any) -> torch.device:
    parameter: Tensor = next(iter(model.parameters()))
    return parameter.device


def default_token_budget(device: torch.device, longest: int) -> int:
    """Tokens of a packed row where the manifest names none: large rows keep a GPU busy, small ones keep a CPU in its caches."""
    return max(longest, 16384 if device.type == "cuda" else 512)
