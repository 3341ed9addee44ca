"""`spec.policy` and every other reference to a model."""

from __future__ import annotations

import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from rlhf_api.base import Model, Revision, SourceUri, WholeNumber

from .storage import ConfigMapKey, SecretReference


class SourceCredentials(Model):
    """Credentials of a hub: a Secret with key HF_TOKEN."""

    secret_ref: SecretReference


class ModelRef(Model):
    """A model in Hugging Face's format."""

    uri: SourceUri
    """hf://owner/name, s3://bucket/folder, or file:///folder (a mounted volume)."""
    revision: Revision | None = None
    """Branch, tag or commit of a hub model; preflight records the commit."""
    credentials: SourceCredentials | None = None
    trust_remote_code: bool = False
    """Run Python of the model's repository: its authors are trusted with the cluster."""
    base: Annotated[str, StringConstraints(max_length=1024)] | None = None
    """What it was fine-tuned from; absent: its card's base_model."""


class Dtype(StrEnum):
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class ChatTemplateName(StrEnum):
    LLAMA_3 = "Llama3"
    CHAT_ML = "ChatML"


class ChatTemplate(Model):
    """At most one of name, inline and configMapKeyRef; none: the tokenizer's own. And the date that it is told."""

    name: ChatTemplateName | None = None
    """A template that comes with the image."""
    inline: Annotated[str, StringConstraints(min_length=1, max_length=32768)] | None = None
    """A Jinja template, as tokenizer_config.json has it."""
    config_map_key_ref: ConfigMapKey | None = None
    """A Jinja template in a ConfigMap."""
    date: datetime.date | None = None
    """What a template that asks for the date is told: never the clock; absent: 2024-07-26."""

    @property
    def undated(self) -> ChatTemplate | None:
        """As a labeler that the run trains from pi_0 reads it: it is asked on the same day in every run, so it is trained on that
        day. None: the tokenizer's own."""
        undated = self.model_copy(update={"date": None})
        return None if undated == ChatTemplate() else undated


class Policy(Model):
    """The model that learns."""

    model: ModelRef
    dtype: Dtype = Dtype.BFLOAT16
    """Of the forward pass, the exports and the sampler; optimizers keep fp32 master weights."""
    chat_template: ChatTemplate | None = None
    """Absent: the tokenizer's own; a base model without one is refused."""
    stop_token_ids: Annotated[list[WholeNumber], Field(max_length=16)] = []
    """Ids that end a response; absent: from the generation config and the template."""
