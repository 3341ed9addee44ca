"""`spec.sample`: exploration as data."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, EntryName, Model, Positive, Share, ShortText, WholeNumber, unique_by

from .compute import Pod, Queue


class IterateType(StrEnum):
    """What each means in iteration t is a table in docs/api.md."""

    LATEST = "Latest"
    INITIAL = "Initial"
    PREVIOUS = "Previous"
    BEST = "Best"
    NUMBER = "Number"


class IterateRef(Model):
    type: IterateType = IterateType.LATEST
    """Latest: what this iteration starts from. Initial: pi_0. Previous: what Latest was an iteration earlier. Best: best so far.
    Number: pi_k."""
    iteration: WholeNumber | None = None
    """k of pi_k, with type Number: less than the iteration that samples; a discarded iterate counts too."""


class MixtureEntry(Model):
    """One sampler; the entries' weights split each prompt's completions by largest remainder."""

    name: EntryName
    """Its name in counts and reports."""
    iterate: IterateRef = IterateRef()
    """The iterate that answers."""
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus sampling: the smallest set of tokens with this probability mass; 1.0: off."""
    top_k: WholeNumber = 0
    """Sample from the k most likely tokens; 0: off."""
    system_prompt: ShortText | None = None
    """A system message, put before the prompt's messages."""
    weight: Positive = 1.0
    """Its share of each prompt's completions, relative to the other entries."""


class Engine(Model):
    """vLLM."""

    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that hold one copy of the model."""
    gpu_memory_utilization: Share = 0.9
    """Share of each GPU's memory that the engine takes."""
    extra_args: Annotated[list[Annotated[str, StringConstraints(max_length=512)]], Field(max_length=64)] = []
    """Further engine arguments for memory and speed, as `vllm serve` spells them: --name=value. None may change what is sampled."""


class Sample(Model):
    """n completions a prompt from a mixture of iterates and temperatures."""

    completions_per_prompt: Annotated[int, Field(ge=2, le=1024)] = 8
    """n: completions of each prompt, over all entries of the mixture."""
    max_new_tokens: Count = 2048
    """Longest completion, in tokens; a longer one is cut and has finish reason length."""
    mixture: Annotated[list[MixtureEntry], Field(min_length=1, max_length=16), unique_by("name")] = [
        MixtureEntry(name="hot", temperature=1.0, weight=0.5),
        MixtureEntry(name="mild", temperature=0.7, weight=0.5),
    ]
    """Who answers, and how: at least one entry."""
    deterministic: bool = False
    """Equal tokens whatever the sharding: vLLM's batch-invariant mode, on GPUs of compute capability 8.0 or above, slower."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    """Parts into which the prompts are split; each is a worker of its own, and redone alone when it fails."""
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    """Shards at work at the same time."""
    engine: Engine = Engine()
    """Settings of vLLM."""
    pod: Pod | None = None
    queue: Queue | None = None


def split_completions(completions: int, weights: Sequence[float]) -> list[int]:
    """How many of a prompt's completions each entry of a mixture gets: by weight, whole numbers by largest remainder.

    Of equal remainders the earlier entry's is rounded up; weights count as written, so 0.6, 0.3, 0.1 of 4 are 2.4, 1.2, 0.4 and a
    tie. The sum is `completions`.
    """
    shares = [Fraction(repr(weight)) for weight in weights]
    exact = [completions * share / sum(shares) for share in shares]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: (counts[index] - exact[index], index))
    for index in by_remainder[: completions - sum(counts)]:
        counts[index] += 1
    return counts
