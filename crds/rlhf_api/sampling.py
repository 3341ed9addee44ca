"""`spec.sample`: exploration as data."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from .base import Count, EntryName, Model, Positive, Share, ShortText, WholeNumber, unique_by
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
    iteration: WholeNumber | None = None
    """k of pi_k, with type Number: less than the iteration that samples; a discarded iterate counts too."""


class MixtureEntry(Model):
    """One sampler; the entries' weights split each prompt's completions by largest remainder."""

    name: EntryName
    iterate: IterateRef = IterateRef()
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: WholeNumber = 0
    """0: off."""
    system_prompt: ShortText | None = None
    weight: Positive = 1.0


class Engine(Model):
    """vLLM."""

    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    gpu_memory_utilization: Share = 0.9
    extra_args: Annotated[list[Annotated[str, StringConstraints(max_length=512)]], Field(max_length=64)] = []
    """Further engine arguments, as `vllm serve` spells them: --name=value."""


class Sample(Model):
    """n completions a prompt from a mixture of iterates and temperatures."""

    completions_per_prompt: Annotated[int, Field(ge=2, le=1024)] = 8
    max_new_tokens: Count = 2048
    mixture: Annotated[list[MixtureEntry], Field(min_length=1, max_length=16), unique_by("name")] = [
        MixtureEntry(name="hot", temperature=1.0, weight=0.5),
        MixtureEntry(name="mild", temperature=0.7, weight=0.5),
    ]
    deterministic: bool = False
    """Equal tokens whatever the sharding: the engine's batch-invariant mode, GPU only, at a cost that is reported."""
    shards: Annotated[int, Field(ge=1, le=1024)] = 1
    parallelism: Annotated[int, Field(ge=1, le=1024)] = 1
    engine: Engine = Engine()
    pod: Pod | None = None
    queue: Queue | None = None
