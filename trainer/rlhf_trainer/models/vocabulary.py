"""Tokenizer, chat template and stop ids of a model. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlhf_api.conventions.canonical import canonical_json
from rlhf_api.resource.model import ChatTemplate
from rlhf_api.stage import PolicyInput
from rlhf_trainer.runtime.config_maps import read_config_map_key
from rlhf_trainer.runtime.errors import ConfigurationProblem, first_line

from .chat import Chat, added_ids
from .ends import stop_token_ids
from .folder import trusts
from .templates import DATE, NAMED_TEMPLATES
from .tokens import prepends_first


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with what the policy's use of it needs."""

    tokenizer: Any
    stop_ids: frozenset[int]
    chat: Chat

    @property
    def template_hash(self) -> str:
        return self.chat.template.hash

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 (64 hex digits) of what decides which ids a conversation has, and which of them end it.

        The same for a model and for what is trained from it, whatever else the folders of the two hold. None for a tokenizer that
        is code, and no tokenizer.json: nobody can tell all that decides its ids.
        """
        if not self.tokenizer.is_fast:
            return None
        identity = [
            self.tokenizer.backend_tokenizer.to_str(),
            self.tokenizer.special_tokens_map,
            self.chat.identity,
            sorted(self.stop_ids),
        ]
        return hashlib.sha256(canonical_json(identity)).hexdigest()

    @property
    def unwritten_bos(self) -> str:
        """What the tokenizer puts in front of a text by itself and the template does not write; empty where they agree."""
        bos = str(self.tokenizer.decode(added_ids(self.tokenizer)[0]))
        return "" if self.chat.asked([{"role": "user", "content": "Hello"}]).startswith(bos) else bos

    @property
    def unwritten_eos(self) -> str:
        """What it puts behind a text by itself; empty where the template ends with that, or the tokenizer adds nothing."""
        eos = str(self.tokenizer.decode(added_ids(self.tokenizer)[1]))
        turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
        return "" if self.chat.template.text(self.chat.template.guard(turns), ask=False).endswith(eos) else eos


def load_vocabulary(
    folder: Path,
    template: ChatTemplate | None,
    declared_stops: list[int],
    *,
    trust_remote_code: bool,
    classifier: bool = False,
    template_revision: str | None = None,
) -> Vocabulary:
    """The tokenizer of `folder`, under `template` where one is given; of one in a ConfigMap, the text of this revision.

    A classifier reads BOS and EOS as its own pipeline has them, which gives the template's text to the tokenizer: where the
    template writes none and the tokenizer adds one, it is there. A language model's pipeline lets the template alone decide.
    Raises ConfigurationProblem for a folder without tokenizer, a model without chat template, or one without an end.
    """
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    source = _template(template, template_revision) if template is not None else None
    if source is not None:
        tokenizer.chat_template = source
    if isinstance(tokenizer.chat_template, dict):
        # Some models carry several; the one for plain conversations is called so.
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    if not tokenizer.chat_template:
        raise ConfigurationProblem(
            f"The model at {folder} has no chat template (it is a base model). Set policy.chatTemplate (name or inline) where "
            "it is the policy; another model must bring its own."
        )
    stops = stop_token_ids(tokenizer, _generation_eos(folder), declared_stops)
    day = template.date if template is not None and template.date is not None else DATE
    return Vocabulary(tokenizer, frozenset(stops), Chat(tokenizer, day, *(added_ids(tokenizer) if classifier else ())))


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> Any:
    """What tokenizer.json says, where there is one: it is the whole tokenizer, and what other files lie beside it changes nothing.

    Raises ConfigurationProblem.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    own_code = trust_remote_code and "AutoTokenizer" in _json(folder / "tokenizer_config.json").get("auto_map", ())
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() and not own_code else AutoTokenizer
    options = {"trust_remote_code": trust_remote_code} if kind is AutoTokenizer else {}
    try:
        with quiet_transformers():
            tokenizer = kind.from_pretrained(str(folder), **options)
    except Exception as error:  # tokenizers raises Exception itself, and every reader its own kinds
        raise ConfigurationProblem(f"{folder} holds no tokenizer that transformers can load: {first_line(error)}") from error
    if not hasattr(tokenizer, "all_special_tokens") or not callable(getattr(tokenizer, "get_chat_template", None)):
        raise ConfigurationProblem(
            f"{folder} has a tokenizer of {type(tokenizer).__name__}, which no chat template can be given to. "
            "Add the tokenizer.json of the model."
        )
    if kind is AutoTokenizer and "legacy" not in _json(folder / "tokenizer_config.json") and prepends_first(tokenizer):
        raise ConfigurationProblem(
            f"{folder} has no tokenizer.json, and its tokenizer_config.json does not say whether text behind a control token "
            "begins with SentencePiece's blank, which versions of transformers read either way. Add the tokenizer.json of the "
            'model, or write "legacy": true (it does, as in Llama 2 and Mistral 7B) or false there.'
        )
    return tokenizer


def vocabulary_of(policy: PolicyInput, folder: Path, *, classifier: bool = False) -> Vocabulary:
    """That of a policy whose files are in `folder`, under the template and with the ends that the manifest gives it."""
    return load_vocabulary(
        folder,
        policy.chat_template,
        policy.stop_token_ids,
        trust_remote_code=trusts(policy.model),
        classifier=classifier,
        template_revision=policy.template_revision,
    )


def _template(template: ChatTemplate, revision: str | None) -> str | None:
    """None: the tokenizer's own; of the manifest's there is only a date."""
    if template.config_map_key_ref is not None:
        return read_config_map_key(template.config_map_key_ref, "policy.chatTemplate.configMapKeyRef", revision)
    return template.inline or (NAMED_TEMPLATES[str(template.name)] if template.name is not None else None)


def _generation_eos(folder: Path) -> list[int] | None:
    for name in ("generation_config.json", "config.json"):
        eos = _json(folder / name).get("eos_token_id")
        if eos is None:
            continue
        found: list[int] = eos if isinstance(eos, list) else [eos]
        if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found):
            raise ConfigurationProblem(f"{folder / name} has eos_token_id {eos!r}; expected the id of a token, or a list of them.")
        return found
    return None


def _json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises ConfigurationProblem where it is no JSON object."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationProblem(f"{path} is no readable JSON: {first_line(error)}. Fetch the model again.") from error
    if not isinstance(found, dict):
        raise ConfigurationProblem(f"{path} holds {type(found).__name__}, and no object. Fetch the model again.")
    return found


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """It warns that a tokenizer or a trunk is loaded as another class than its config names: we mean to."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
