"""The one forward pass: of the trainer, of the reference stage, of klToInitial. fp32 log-softmax, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example
from rlhf_trainer.models.heads import CHUNK

from .attention import obeys_tree_mask, require_known_attention
from .plain import plain_states
from .rows import Batch, Packing, build_batch, micro_batches


@dataclass(frozen=True)
class TokenLogps:
    """logps, entropy: [P] in nats, for the P predicted tokens of a batch."""

    logps: Tensor
    entropy: Tensor | None = None


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [B * L, d] of a batch: under its tree mask, or one completion at a time where a model cannot obey it."""
    if not obeys_tree_mask(model, max((example.longest for example in batch.examples), default=0)):
        return plain_states(model, batch)
    output = model.base_model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False, return_dict=True
    )
    states: Tensor = output.last_hidden_state.flatten(0, 1)
    return states


def token_logps(model: Any, batch: Batch) -> Tensor:
    """log pi [P] of every predicted token of `batch`; with a graph even where nothing is predicted, for an idle rank's backward."""
    return token_predictions(model, batch)[0]


def token_predictions(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The same, and whether each token is the one that the model holds most likely [P]."""
    states = hidden_states(model, batch)[batch.predictors]
    logps, most_likely = model.get_output_embeddings()(states, batch.targets)
    return logps, most_likely


def token_collisions(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """`token_logps` [P], and log sum_v p_v^2 [P] of each token's distribution, without a graph."""
    states = hidden_states(model, batch)[batch.predictors]
    logps, _, collisions = model.get_output_embeddings()(states, batch.targets, collisions=True)
    return logps, collisions


@torch.no_grad()
def token_entropies(model: Any, batch: Batch) -> TokenLogps:
    """The same with the entropy of each predicted token's distribution; not for training."""
    states = hidden_states(model, batch)[batch.predictors]
    head = model.get_output_embeddings()
    logps, entropies = [], []
    for part, targets in zip(torch.split(states, CHUNK), torch.split(batch.targets, CHUNK), strict=True):
        normalised = head(part).float().log_softmax(-1)
        logps.append(normalised.gather(-1, targets[:, None])[:, 0])
        entropies.append(-(normalised.exp() * normalised).sum(-1))
    return TokenLogps(torch.cat(logps), torch.cat(entropies))


def completion_sums(values: Tensor, batch: Batch) -> Tensor:
    """Sums [C] of per-token `values` [P] over each completion of the batch."""
    return torch.zeros(batch.completions, dtype=values.dtype, device=values.device).index_add(0, batch.owner, values)


def counted_tokens(batch: Batch) -> Tensor:
    """Predicted tokens [C] of each completion."""
    return completion_sums(torch.ones_like(batch.targets, dtype=torch.float32), batch)


@torch.no_grad()
def score_examples(
    model: Any, examples: Iterable[Example], packing: Packing, *, with_entropy: bool = False
) -> Iterator[ScoredBatch]:
    """Every example under `model`, packed as the trainer packs them; batches come in packing order, each with its examples."""
    examples = list(examples)
    require_known_attention(model, max((example.longest for example in examples), default=0))
    for rows in micro_batches(examples, packing):
        batch = build_batch(rows).to(device_of(model))
        scored = token_entropies(model, batch) if with_entropy else TokenLogps(token_logps(model, batch))
        yield ScoredBatch(
            examples=list(batch.examples),
            logps=completion_sums(scored.logps, batch).tolist(),
            tokens=counted_tokens(batch).tolist(),
            entropies=completion_sums(scored.entropy, batch).tolist() if scored.entropy is not None else None,
        )


@dataclass(frozen=True)
class ScoredBatch:
    """logps, tokens, entropies: a figure a completion, examples in order and completions in order within them."""

    examples: list[Example]
    logps: list[float]
    tokens: list[float]
    entropies: list[float] | None


def device_of(model: Any) -> torch.device:
    parameter: Tensor = next(iter(model.parameters()))
    return parameter.device
