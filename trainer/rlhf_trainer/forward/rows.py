"""Packing: a prompt once, its completions behind it, as many of these trees in one row as the token budget holds.

A token attends to what stands before it in its own completion and to its own prompt, and to nothing else; positions restart behind
the prompt in each completion (arXiv 2410.20305). So a row computes what one padded sequence for each completion would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rlhf_trainer.data.examples import Example


@dataclass(frozen=True)
class Batch:
    """One micro-batch. B: rows; L: tokens of the longest; C: completions in all rows; P: predicted tokens.

    ids, positions: [B, L]; mask: [B, 1, L, L], True where a query (dim 2) may look at a key (dim 3).
    predictors, targets: [P], the place in the flattened ids (row * L + column) whose next token is predicted, and that token.
    owner: [P], the completion that a predicted token belongs to, in 0..C-1: rows in order, examples in order, completions in order.
    ends: [C], the place of each completion's last token.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    predictors: Tensor
    targets: Tensor
    owner: Tensor
    ends: Tensor
    examples: Sequence[Example] = field(default_factory=tuple)

    @property
    def completions(self) -> int:
        return int(self.ends.numel())

    def to(self, device: torch.device) -> Batch:
        if self.ids.device == device:
            return self
        names = ("ids", "positions", "mask", "predictors", "targets", "owner", "ends")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        return replace(self, **moved)


@dataclass(frozen=True)
class Packing:
    """row_length: tokens that a row is filled to. token_budget: tokens of a micro-batch, rows times the longest row."""

    row_length: int
    token_budget: int

    @classmethod
    def choose(cls, longest: int, device: torch.device, token_budget: int | None = None) -> Packing:
        """Attention costs the square of a row's length, so rows are not much longer than the longest example.

        A batch of them keeps a GPU busy, or stays in a CPU's caches.
        """
        row_length = max(longest, 2048 if device.type == "cuda" else 64)
        return cls(row_length, token_budget or max(row_length, 16384 if device.type == "cuda" else 2048))


def pack(examples: Sequence[Example], row_length: int) -> list[list[Example]]:
    """Rows of at most `row_length` tokens: longest example first, into the first row with room among the newest 64.

    One example may exceed it alone.
    """
    rows: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda e: -e.tokens):
        # All rows before are nearly full: looking at each of them for each example would cost the square.
        for index in range(max(0, len(rows) - 64), len(rows)):
            if example.tokens <= room[index]:
                rows[index].append(example)
                room[index] -= example.tokens
                break
        else:
            rows.append([example])
            room.append(row_length - example.tokens)
    return rows


def micro_batches(examples: Sequence[Example], packing: Packing) -> list[list[list[Example]]]:
    """Rows, as many in each micro-batch as its budget holds; at least one."""
    rows = pack(examples, packing.row_length)
    batches: list[list[list[Example]]] = []
    longest = 0
    for row in rows:
        longest = max(longest, sum(example.tokens for example in row))
        if batches and (len(batches[-1]) + 1) * longest <= packing.token_budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = sum(example.tokens for example in row)
    return batches


def build_batch(rows: Sequence[Sequence[Example]]) -> Batch:
    """The tensors of a micro-batch. Without rows: one token that predicts nothing; an idle rank still takes part."""
    laid = [_lay(row) for row in rows] or [_lay(())]
    length = max(len(row.ids) for row in laid)
    predictors: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    ends: list[int] = []
    for number, row in enumerate(laid):
        first = len(ends)
        predictors += [number * length + column for column in row.predictors]
        targets += row.targets
        owner += [first + completion for completion in row.owner]
        ends += [number * length + column for column in row.ends]
    return Batch(
        ids=torch.tensor([_padded(row.ids, length) for row in laid]),
        positions=torch.tensor([_padded(row.positions, length) for row in laid]),
        mask=_tree_mask(
            torch.tensor([_padded(row.tree, length, -1) for row in laid]),
            torch.tensor([_padded(row.branch, length) for row in laid]),
        ),
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        owner=torch.tensor(owner, dtype=torch.long),
        ends=torch.tensor(ends, dtype=torch.long),
        examples=tuple(example for row in rows for example in row),
    )


def beginnings(batch: Batch) -> Tensor:
    """[C], the place in the flattened ids of the first token of each completion's prompt."""
    ends: list[int] = batch.ends.tolist()
    found: list[int] = []
    for example in batch.examples:
        first = ends[len(found)] - len(example.completions[0]) - len(example.prompt) + 1
        found += [first] * len(example.completions)
    return torch.tensor(found, dtype=torch.long)


@dataclass
class _Row:
    """tree: the example of a token; branch: its completion, -1 in the prompt."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    tree: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)
    predictors: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def append(self, tokens: Sequence[int], first_position: int, tree: int, branch: int) -> None:
        self.ids += tokens
        self.positions += range(first_position, first_position + len(tokens))
        self.tree += [tree] * len(tokens)
        self.branch += [branch] * len(tokens)


def _lay(examples: Sequence[Example]) -> _Row:
    row = _Row()
    for number, example in enumerate(examples):
        row.append(example.prompt, 0, number, -1)
        last_of_prompt = len(row.ids) - 1
        for branch, completion in enumerate(example.completions):
            first = len(row.ids)
            flags = example.counted[branch] if example.counted is not None else None
            for offset, token in enumerate(completion):
                # The first token is predicted at the prompt's last; a conversation without a prompt has no such place.
                if (flags is None or flags[offset]) and (offset > 0 or example.prompt):
                    row.predictors.append(last_of_prompt if offset == 0 else first + offset - 1)
                    row.targets.append(token)
                    row.owner.append(len(row.ends))
            row.append(completion, len(example.prompt), number, branch)
            row.ends.append(len(row.ids) - 1)
    if not row.ids:
        row.append([0], 0, 0, -1)
    return row


def _padded(values: list[int], length: int, filler: int = 0) -> list[int]:
    return values + [filler] * (length - len(values))


def _tree_mask(tree: Tensor, branch: Tensor) -> Tensor:
    """[B, 1, L, L]. Padding (tree -1) looks at padding, for a query that may look at nothing gives NaN; nobody looks at it."""
    length = tree.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same_tree = tree[:, :, None] == tree[:, None, :]
    same_branch = branch[:, :, None] == branch[:, None, :]
    key_is_prompt = (branch == -1)[:, None, :]
    return (causal & same_tree & (same_branch | key_is_prompt))[:, None]
