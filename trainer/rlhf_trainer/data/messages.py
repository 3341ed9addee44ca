"""Conversations: from what a row holds to messages with a role and a content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhf_trainer.runtime.errors import ConfigurationProblem

Message = Mapping[str, str]
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def as_messages(value: object, where: str) -> tuple[Message, ...]:
    """A conversation from a list of {role, content}, or from text: one user turn. Raises ConfigurationProblem otherwise."""
    if isinstance(value, str) and value.strip():
        return ({"role": "user", "content": value},)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        messages = []
        for item in value:
            role = item.get("role") or _SHAREGPT_ROLES.get(item.get("from", "")) if isinstance(item, Mapping) else None
            content = (item.get("value") if item.get("content") is None else item["content"]) if isinstance(item, Mapping) else None
            if not isinstance(role, str) or not isinstance(content, str):
                raise ConfigurationProblem(f"{where}: {_short(item)} is no message; a message has a role and a content.")
            messages.append({"role": role, "content": content})
        return tuple(messages)
    raise ConfigurationProblem(
        f"{where}: {_short(value)} is no conversation; expected text, or a list of messages with role and content."
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
