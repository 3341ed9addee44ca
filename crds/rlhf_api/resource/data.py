"""Data sources: demonstrations, preferences, prompts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, EntryName, Model, Positive, Revision, SourceUri, WholeNumber

from .model import SourceCredentials

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
RoleName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
SplitName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Role(StrEnum):
    """Of a turn."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Source(Model):
    """A data set: of the hub, or Parquet and JSON lines files in a store or a folder."""

    uri: SourceUri
    """hf://owner/name, s3://bucket/key, file:///path; a file or a folder. Prompts may use {iteration}."""
    split: SplitName = "train"
    """A split of the hub; of a folder: files called so, or name-…, or in a folder of that name."""
    config: SplitName | None = None
    """A configuration of a hub data set that has several, as main of openai/gsm8k."""
    revision: Revision | None = None
    """Branch, tag or commit of a hub data set; preflight records the commit."""
    credentials: SourceCredentials | None = None
    """For a private data set of a hub."""
    roles: Annotated[dict[RoleName, Role], Field(max_length=16)] | None = None
    """Names of roles beside the usual ones: {speaker_1: user}."""
    max_unusable_rows: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """A share of the rows, counted by reason."""
    max_unparsable_rows: WholeNumber = 0
    """Rows that may be no JSON objects."""


class DataLayout(StrEnum):
    """How the rows of a data set hold conversations."""

    MESSAGES = "Messages"
    """A list of messages (role and content, or from and value), also as JSON text, or a transcript of Human and Assistant."""
    PROMPT_RESPONSE = "PromptResponse"
    """A column with the prompt and one with the response: prompt and response, question and answer, instruction and output."""
    CHOSEN_REJECTED = "ChosenRejected"
    """chosen and rejected each hold the whole conversation."""
    PROMPT_CHOSEN_REJECTED = "PromptChosenRejected"
    """The prompt has a column of its own; chosen and rejected are answers to it."""
    RESPONSES_WITH_SCORES = "ResponsesWithScores"
    """A prompt, a list of responses, and their scores: the best of them against the worst."""


class DataSource(Source):
    """A named part of a mixture."""

    name: EntryName
    """Its name in reports and counts."""
    column: ColumnName | None = None
    """The column with the conversation; absent: recognised by its name."""
    layout: DataLayout | None = None
    """Absent: recognised by the columns."""
    weight: Positive = 1.0
    """Rows taken are proportional to weight times rows; 1.0 everywhere takes all."""
    max_examples: Count | None = None
    """Rows taken at most: a sample by the seed and by what a row holds, the same in whatever order files and rows come."""


class PromptSource(Source):
    """Prompts: a column with messages (role, content) or plain text."""

    column: ColumnName = "messages"
    """The column with the prompt: messages, or text of the user; without one called messages, its name is recognised."""
    answer_column: ColumnName | None = None
    """The column with the reference answer, text or a number, for rules that compare with one; the policy never sees it."""


class HoldOut(Model):
    """Prompts kept out of training: `size` or `fraction` of prompts.source, or a source of their own."""

    size: WholeNumber | None = None
    """Prompts to hold out, in number."""
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Prompts to hold out, as a share of the source."""
    source: PromptSource | None = None
    """A data set of their own, instead of a part of prompts.source."""


class Prompts(Model):
    """What the policy is asked."""

    source: PromptSource
    per_iteration: Count = 20000
    """At most; hold-outs are taken first, evenly over the T sources by hash of the prompt id."""
    validation: HoldOut = HoldOut(size=500)
    """For selection and gates."""
    test: HoldOut | None = None
    """For the report's final figures only."""
    max_near_held_out: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01
    """A share of what is trained on of a source: what asks nearly the same as a held-out prompt."""
