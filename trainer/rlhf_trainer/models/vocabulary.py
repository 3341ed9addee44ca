"""Tokenizer, chat template and stop ids of a model. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_api.resource.model import ChatTemplate
from rlhf_api.stage import PolicyInput
from rlhf_trainer.runtime.config_maps import read_config_map_key
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

from . import chat
from .folder import trusts


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what the policy's use of it needs."""

    tokenizer: Any
    stop_ids: frozenset[int]
    template_hash: str


def load_vocabulary(
    folder: Path, template: ChatTemplate | None, declared_stops: list[int], *, trust_remote_code: bool
) -> Vocabulary:
    """The tokenizer of `folder`, under `template` where one is given.

    Raises ConfigurationProblem for a folder without tokenizer, a model without chat template, or one without an end.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise ConfigurationProblem(f"{folder} holds no tokenizer that transformers can load: {first_line(error)}") from error
    if template is not None:
        tokenizer.chat_template = _template(template)
    if isinstance(tokenizer.chat_template, dict):
        # Some models carry several; the one for plain conversations is called so.
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template:
        raise ConfigurationProblem(
            f"The model at {folder} has no chat template (it is a base model). Set policy.chatTemplate (name or inline) where "
            "it is the policy; another model must bring its own."
        )
    stops = chat.stop_token_ids(tokenizer, _generation_eos(folder), declared_stops)
    return Vocabulary(tokenizer, frozenset(stops), chat.template_hash(tokenizer))


def vocabulary_of(policy: PolicyInput, folder: Path) -> Vocabulary:
    """That of a policy whose files are in `folder`, under the template and with the ends that the manifest gives it."""
    return load_vocabulary(folder, policy.chat_template, policy.stop_token_ids, trust_remote_code=trusts(policy.model))


def _template(template: ChatTemplate) -> str:
    if template.config_map_key_ref is not None:
        return read_config_map_key(template.config_map_key_ref, "policy.chatTemplate.configMapKeyRef")
    return template.inline or chat.NAMED_TEMPLATES[str(template.name)]


def _generation_eos(folder: Path) -> int | list[int] | None:
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.exists():
            eos = json.loads(path.read_text()).get("eos_token_id")
            if eos is not None:
                return eos  # type: ignore[no-any-return]
    return None
