"""Messages to token ids, once. After this module only ids pass between stages."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_trainer.runtime.errors import ConfigurationProblem

Messages = Sequence[Mapping[str, str]]

#: Templates that a manifest may name. Llama3 is the format of Meta's Llama 3 model card; ChatML is OpenAI's.
NAMED_TEMPLATES: dict[str, str] = {
    "Llama3": (
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "ChatML": (
        "{{ bos_token or '' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}


class BoundaryProblem(ConfigurationProblem):
    """One token holds the last of what stands before an answer, and the first of the answer."""


def template_hash(tokenizer: Any) -> str:
    """First 16 hex digits of the SHA-256 of the chat template: samples carry it, so that a mismatch is seen."""
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]


def encode_prompt(tokenizer: Any, messages: Messages) -> list[int]:
    """Ids of `messages` and the header of the answer. BOS is what the template writes: the tokenizer adds none of its own.

    Raises ConfigurationProblem when BOS stands twice at the start, or when the template cannot render these roles.
    """
    ids = _render(tokenizer, messages, add_generation_prompt=True)
    require_one_bos(tokenizer, ids)
    return ids


def encode_conversation(tokenizer: Any, messages: Messages, stop_ids: frozenset[int] = frozenset()) -> tuple[list[int], list[bool]]:
    """Ids of the whole conversation and, for each, whether the loss counts it: what the assistant says, its end included.

    Raises ConfigurationProblem when the template is not a prefix code, so that turns cannot be told apart; BoundaryProblem
    where that may be this conversation's alone.
    """
    ids: list[int] = []
    counted: list[bool] = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prefix = _render(tokenizer, messages[:position], add_generation_prompt=True)
        full = _render(tokenizer, messages[: position + 1], add_generation_prompt=False)
        if full[: len(prefix)] != prefix or prefix[: len(ids)] != ids:
            merged = prefix[: len(ids)] == ids and full[: len(prefix) - 1] == prefix[:-1]
            raise (BoundaryProblem if merged else ConfigurationProblem)(
                "The chat template does not continue its own prompt: what it renders for a conversation does not begin with "
                "what it renders for the conversation so far, so the assistant's tokens cannot be found. Set policy.chatTemplate "
                "to a template that appends."
            )
        counted += [False] * (len(prefix) - len(ids))
        answer = full[len(prefix) :]
        end = next((i + 1 for i, token in enumerate(answer) if token in stop_ids), len(answer))
        counted += [True] * end + [False] * (len(answer) - end)
        ids = full
    require_one_bos(tokenizer, ids)
    return ids, counted


def encode_exchange(tokenizer: Any, messages: Messages, response: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt and of the closed response behind it, as a reward model reads them with its own template.

    Raises ConfigurationProblem when the two do not concatenate.
    """
    prefix = _render(tokenizer, messages, add_generation_prompt=True)
    full = _render(tokenizer, [*messages, {"role": "assistant", "content": response}], add_generation_prompt=False)
    if full[: len(prefix)] != prefix:
        # The template treats a generation prompt differently from a finished turn; the reward model only ever sees finished turns.
        shared = next((i for i, (a, b) in enumerate(zip(prefix, full, strict=False)) if a != b), min(len(prefix), len(full)))
        prefix = full[:shared]
    require_one_bos(tokenizer, full)
    return prefix, full[len(prefix) :]


def require_one_bos(tokenizer: Any, ids: Sequence[int]) -> None:
    """Raises ConfigurationProblem unless BOS, where the tokenizer has one, is written at most once."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return
    if ids.count(bos) > 1 and list(ids[:2]) == [bos, bos]:
        raise ConfigurationProblem(
            f"The chat template and the tokenizer both write BOS (id {bos} stands twice at the start). Remove bos_token from the "
            "template, or add_bos_token from tokenizer_config.json."
        )


def stop_token_ids(tokenizer: Any, generation_eos: int | Sequence[int] | None, declared: Sequence[int]) -> list[int]:
    """The ids that end a response: `declared` (policy.stopTokenIds), else those of the generation config, the tokenizer's EOS and
    the id with which the template closes an assistant turn. Sorted.

    Raises ConfigurationProblem when there is none, or when a declared one is not in the vocabulary.
    """
    if declared:
        outside = [token for token in declared if token >= len(tokenizer)]
        if outside:
            raise ConfigurationProblem(
                f"policy.stopTokenIds has {outside}, beyond the tokenizer's {len(tokenizer)} tokens. Take ids from the tokenizer."
            )
        return sorted(set(declared))
    ids: set[int] = set()
    if generation_eos is not None:
        ids |= {generation_eos} if isinstance(generation_eos, int) else set(generation_eos)
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    closing = turn_closing_id(tokenizer)
    if closing is not None:
        ids.add(closing)
    if not ids:
        raise ConfigurationProblem(
            "Nothing says which token ends a response: neither the generation config nor the tokenizer has an EOS. "
            "Set policy.stopTokenIds."
        )
    return sorted(ids)


def turn_closing_id(tokenizer: Any) -> int | None:
    """The special token with which the template ends an assistant turn, None where it ends with none.

    It is the first one in what is the same behind two different answers: a template may write others in front of an answer.
    """
    first, second = (
        _render(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}], add_generation_prompt=False)
        for text in ("a", "b")
    )
    same = next((i for i, (a, b) in enumerate(zip(first[::-1], second[::-1], strict=False)) if a != b), 0)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    return next((token for token in first[len(first) - same :] if token in special), None)


def _render(tokenizer: Any, messages: Messages, *, add_generation_prompt: bool) -> list[int]:
    try:
        ids = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=True, add_generation_prompt=add_generation_prompt, return_dict=False
        )
    except Exception as error:  # jinja2 raises many kinds; each is the template's refusal of these messages
        raise ConfigurationProblem(
            f"The chat template cannot render this conversation: {error}. Set policy.chatTemplate."
        ) from error
    return [int(token) for token in ids]
