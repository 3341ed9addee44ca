"""Labelers score responses: the training reward and the judge are both one of these."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, Model, NonNegative, ShortText, unique_by

from .compute import Compute, RewardOptimization
from .data import DataSource
from .model import ModelRef


class LabelerType(StrEnum):
    BRADLEY_TERRY = "BradleyTerry"
    PAIRWISE = "Pairwise"
    MULTI_OBJECTIVE = "MultiObjective"
    RULE = "Rule"
    JUDGE = "Judge"
    HUMAN = "Human"


class RewardTraining(Model):
    """Train the Bradley-Terry model in this run, before iteration 1."""

    base: ModelRef | None = None
    """What it starts from; absent: pi_0."""
    data: Annotated[list[DataSource], Field(min_length=1, max_length=32), unique_by("name")]
    """Preferences: columns `chosen` and `rejected` (conversations that share their prompt), optionally scores."""
    optimization: RewardOptimization = RewardOptimization()
    """AdamW and its schedule; the batch counts pairs."""
    max_length: Count = 4096
    """Longest conversation, in tokens of the reward model."""
    min_margin: NonNegative = 0.0
    """Pairs whose `chosen_score` - `rejected_score` is not above it are dropped and counted, where the data has scores."""
    compute: Compute = Compute()


class BradleyTerry(Model):
    """A scalar head on the last real token. Exactly one of the two."""

    model: ModelRef | None = None
    """A trained reward model: a sequence classifier with one label."""
    train: RewardTraining | None = None


class ModelLabeler(Model):
    model: ModelRef
    """The model that scores."""


class Rule(Model):
    """A Python function that scores (prompt messages, response text): no model."""

    entry_point: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$", max_length=512)]
    """`module:function` that stages can import; docs/rules.md says how to write one, and where it lies."""


class LlmJudge(Model):
    """A chat model that is asked."""

    model: ModelRef
    """The chat model."""
    prompt: ShortText | None = None
    """Instructions to it; absent: the built-in ones."""


class Labeler(Model):
    """A union: `type` and exactly the member it names."""

    type: LabelerType
    """Which kind of labeler; the member of that name configures it."""
    bradley_terry: BradleyTerry | None = None
    """A Bradley-Terry reward model: a score for each response."""
    pairwise: ModelLabeler | None = None
    """A pairwise preference model: which of two responses is better, asked in both orders."""
    multi_objective: ModelLabeler | None = None
    """A reward model with several rewards and a gate over them, published as RLHFlow/ArmoRM-Llama3-8B-v0.1 is."""
    rule: Rule | None = None
    """A Python function."""
    judge: LlmJudge | None = None
    """A chat model that is asked."""
