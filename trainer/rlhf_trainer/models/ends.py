"""Where a response ends: the ids that stop it, and whether what is trained on holds one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rlhf_trainer.runtime.errors import ConfigurationProblem

from .templates import Template
from .tokens import Encoder, Written


class NoEnd(ConfigurationProblem):
    """A conversation whose last answer is closed by nothing that would stop the sampler."""


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
    template = Template(tokenizer)
    encoder = Encoder(tokenizer, template.controls)
    first, second = (
        encoder.encode(Written(guarded, template.text(guarded, ask=False))).ids
        for guarded in (
            template.guard([{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]) for text in ("a", "b")
        )
    )
    same = next((i for i, (a, b) in enumerate(zip(first[::-1], second[::-1], strict=False)) if a != b), 0)
    special = {tokenizer.convert_tokens_to_ids(token) for token in template.controls} - {tokenizer.unk_token_id}
    return next((token for token in first[len(first) - same :] if token in special), None)


def require_end(tokenizer: Any, answer: Sequence[int], stop_ids: Collection[int]) -> None:
    """Raises NoEnd where `answer`, the last one of a conversation as its template writes it, has no id that stops a response."""
    if not stop_ids or not set(stop_ids).isdisjoint(answer):
        return
    stops = ", ".join(repr(tokenizer.decode([token])) for token in sorted(stop_ids))
    raise NoEnd(
        f"The chat template closes the last answer with {tokenizer.decode(list(answer[-16:]))!r}, and none of the tokens that end "
        f"a response is in it ({stops}): a model that is trained on it never learns to stop. Set policy.chatTemplate to one that "
        "closes each answer, or policy.stopTokenIds to the token with which it does."
    )
