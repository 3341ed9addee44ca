"""Packing: a prompt once, its completions behind it, as many of these trees in one row as the token budget holds.

A token attends to what stands before it in its own completion and to its own prompt, and to nothing else; positions restart behind
the prompt in each completion (arXiv 2410.20305). So a row computes what one padded sequence for each completion would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One prompt with one (SFT) or two (chosen, rejected) completions, as ids.

    `counted` marks, for each completion, the tokens that the loss counts; None: all of them. `reference` holds the reference
    log-probs of the completions (sums, nats), where the loss has one.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    counted: Sequence[Sequence[bool]] | None = None
    reference: Sequence[float] = ()

    @property
    def tokens(self) -> int:
        return len(self.prompt) + sum(len(completion) for completion in self.completions)

    @property
    def counted_tokens(self) -> int:
        if self.counted is None:
            return sum(len(completion) for completion in self.completions)
        return sum(sum(flags) for flags in self.counted)


@dataclass(frozen=True)
class Row:
    """One micro-batch. L: tokens of the row; C: completions in it; P: predicted tokens.

    ids, positions: [1, L]; mask: [1, 1, L, L], True where a query (dim 2) may look at a key (dim 3).
    predictors, targets: [P], the index in the row whose next token is predicted, and that token.
    owner: [P], the completion that a predicted token belongs to, in 0..C-1, prompts in order, completions in order.
    ends: [C], the index of each completion's last token.
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


def pack(examples: Sequence[Example], token_budget: int) -> list[list[Example]]:
    """Groups of examples of at most `token_budget` tokens each: first fit, longest first. One example may exceed it alone."""
    groups: list[list[Example]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda e: -e.tokens):
        for index, free in enumerate(room):
            if example.tokens <= free:
                groups[index].append(example)
                room[index] -= example.tokens
                break
        else:
            groups.append([example])
            room.append(token_budget - example.tokens)
    return groups


def build_row(examples: Sequence[Example]) -> Row:
    """The tensors of one row. An empty list gives one token that predicts nothing: a rank with nothing to do still takes part."""
    ids: list[int] = []
    positions: list[int] = []
    tree: list[int] = []
    branch: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    ends: list[int] = []
    for number, example in enumerate(examples):
        start = len(ids)
        ids += example.prompt
        positions += range(len(example.prompt))
        tree += [number] * len(example.prompt)
        branch += [-1] * len(example.prompt)
        last_of_prompt = start + len(example.prompt) - 1
        for position, completion in enumerate(example.completions):
            first = len(ids)
            flags = example.counted[position] if example.counted is not None else None
            for offset, token in enumerate(completion):
                if flags is None or flags[offset]:
                    # A response's first token is predicted at the prompt's last; a conversation without prompt has no such place.
                    if offset == 0 and not example.prompt:
                        continue
                    predictors.append(last_of_prompt if offset == 0 else first + offset - 1)
                    targets.append(token)
                    owner.append(len(ends))
            ids += completion
            positions += range(len(example.prompt), len(example.prompt) + len(completion))
            tree += [number] * len(completion)
            branch += [position] * len(completion)
            ends.append(len(ids) - 1)
    if not ids:
        ids, positions, tree, branch = [0], [0], [0], [-1]
    return Row(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        mask=_tree_mask(torch.tensor(tree), torch.tensor(branch)),
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        owner=torch.tensor(owner, dtype=torch.long),
        ends=torch.tensor(ends, dtype=torch.long),
        examples=tuple(examples),
    )


def _tree_mask(tree: Tensor, branch: Tensor) -> Tensor:
    length = tree.numel()
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same_tree = tree[:, None] == tree[None, :]
    same_branch = branch[:, None] == branch[None, :]
    key_is_prompt = (branch == -1)[None, :]
    return (causal & same_tree & (same_branch | key_is_prompt))[None, None]
