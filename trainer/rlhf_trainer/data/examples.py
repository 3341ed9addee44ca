"""What is trained on and scored: a prompt and its completions as ids, and how ranks are given them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


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
        """Tokens that are predicted: without a prompt, nothing predicts the first."""
        first = 0 if self.prompt else 1
        if self.counted is None:
            return sum(len(completion) - first for completion in self.completions)
        return sum(sum(flags[first:]) for flags in self.counted)


_SCHEMA = pa.schema(
    [
        ("prompt", pa.list_(pa.int32())),
        ("completions", pa.list_(pa.list_(pa.int32()))),
        ("counted", pa.list_(pa.list_(pa.bool_()))),
        ("reference", pa.list_(pa.float64())),
    ]
)


def to_table(examples: Sequence[Example]) -> pa.Table:
    return pa.table(
        {
            "prompt": [e.prompt for e in examples],
            "completions": [e.completions for e in examples],
            "counted": [e.counted for e in examples],
            "reference": [e.reference for e in examples],
        },
        schema=_SCHEMA,
    )


def from_table(table: pa.Table) -> list[Example]:
    return [Example(row["prompt"], row["completions"], row["counted"], tuple(row["reference"] or ())) for row in table.to_pylist()]
