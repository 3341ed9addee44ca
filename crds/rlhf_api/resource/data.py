"""Data sources: demonstrations, preferences, prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Count, EntryName, Model, Positive, Revision, SourceUri, WholeNumber

from .model import SourceCredentials

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
SplitName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Source(Model):
    """A data set: of the hub, or Parquet and JSON lines files in a store or a folder."""

    uri: SourceUri
    """hf://owner/name, s3://bucket/key, file:///path; a file or a folder. Prompts may use {iteration}."""
    split: SplitName = "train"
    """Split of a hub data set; of a folder, the files of that name or name-…; a single file needs none."""
    revision: Revision | None = None
    """Branch, tag or commit of a hub data set; resolved to a commit by preflight and recorded."""
    credentials: SourceCredentials | None = None
    """For a private data set of a hub."""


class DataSource(Source):
    """A named part of a mixture."""

    name: EntryName
    """Its name in reports and counts."""
    column: ColumnName | None = None
    """The column with the conversation. Absent: `messages` for demonstrations, `chosen` and `rejected` for preferences."""
    weight: Positive = 1.0
    """Relative to the other sources: rows taken are proportional to weight times rows; 1.0 everywhere takes all."""


class PromptSource(Source):
    """Prompts: a column with messages (role, content) or plain text."""

    column: ColumnName = "messages"
    """The column with the prompt: messages, or text, which becomes one user message."""


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
