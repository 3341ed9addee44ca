"""The forward of models that cannot read a packed row: one completion a row, as their makers' own code reads it.

A recurrent or convolutional layer reads over the borders of a packed row, and a sliding window is counted along it. So each
completion is a row of its own behind its prompt, from position 0 on, without a mask but the model's own. What is behind a shorter
row is filler, which no token of it sees: all such models are causal. A prompt is computed once for each of its completions, where a
packed row has it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .rows import Batch


def plain_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [B * L, d], each in its token's place in the batch: as `hidden_states`, but that padding's are zero."""
    sequences = list(_places(batch)) or [[0]]
    flat = batch.ids.flatten()
    states: Tensor | None = None
    for part in _parts(sequences, batch):
        length = max(len(places) for places in part)
        rows = torch.tensor([[*places, *[places[-1]] * (length - len(places))] for places in part], device=flat.device)
        found = model.base_model(input_ids=flat[rows], use_cache=False, return_dict=True).last_hidden_state
        if states is None:
            states = torch.zeros(flat.numel(), found.shape[-1], dtype=found.dtype, device=found.device)
        # A prompt's states are the same in each of its rows: the last that is written stands, and gets what gradient there is.
        own = [(row, column, place) for row, places in enumerate(part) for column, place in enumerate(places)]
        last = {place: (row, column) for row, column, place in own}
        to = torch.tensor(list(last), device=flat.device)
        row_of, column_of = (torch.tensor(index, device=flat.device) for index in zip(*last.values(), strict=True))
        states = states.index_copy(0, to, found[row_of, column_of])
    assert states is not None  # noqa: S101 - there is a sequence, if but the one that predicts nothing
    return states


def _places(batch: Batch) -> Iterator[list[int]]:
    """Of each completion: the places of its prompt and its own in the flattened ids."""
    ends = iter(batch.ends.tolist())
    for example in batch.examples:
        prompt: list[int] | None = None
        for completion in example.completions:
            end = next(ends) + 1
            first = end - len(completion)
            prompt = list(range(first - len(example.prompt), first)) if prompt is None else prompt
            yield [*prompt, *range(first, end)]


def _parts(sequences: Sequence[list[int]], batch: Batch) -> Iterator[Sequence[list[int]]]:
    """With a graph all at once, for ranks that shard a model go through it equally often; else as many tokens as the batch has."""
    if torch.is_grad_enabled() or torch.distributed.is_initialized():
        yield sequences
        return
    part: list[list[int]] = []
    for places in sequences:
        longest = max(len(places), max(map(len, part), default=0))
        if part and (len(part) + 1) * longest > batch.ids.numel():
            yield part
            part = []
        part.append(places)
    yield part
